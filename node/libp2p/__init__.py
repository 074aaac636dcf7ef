"""Our own wire-compatible pieces under py-libp2p: Noise session, Yamux, multistream-select.

Cores are sans-IO (`noise_frames`, `yamux_frames`, `yamux_state`, `yamux`, `multiselect`); `noise_session`, `muxer` and
`muxed_stream` are the trio shells around them, `channel` the Transport seam's view of a stream.
`node.libp2p_host` hooks them in.
"""
