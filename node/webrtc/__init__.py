"""WebRTC data channels: for browsers, and for routers that let UDP be punched through where TCP cannot be.

aiortc needs asyncio and parses in plain Python what strangers send, so it runs in a process of its own (`__main__`,
`connection`, `bridge`), which the node starts when it is first needed (`helper`). Cores are sans-IO: `messages`
(streams on data channels), `signalling`, `description` (SDP), `candidates`, `local` (what the two processes say).
`service` is the whole, in trio; `session` makes a connection of the process look like any other to the muxer.
Format: docs/spec/webrtc.md.
"""
