"""Calls between two peers over one channel each way: frames, credit, messages with tensors (docs/spec/rpc.md).

Sans-IO: `caller.Caller` and `server.Server` take frames and `now` and give frames and events; `node.rpc` runs them.
"""
