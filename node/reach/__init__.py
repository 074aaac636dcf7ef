"""Being reached from behind routers: what others see of us, what was proven, relays, connections through NATs.

Cores are sans-IO (`addresses`, `observed`, `claims`, `gate`, `messages`, `protobuf`, `circuit_messages`, `quota`);
`check`, `relay`, `circuit` and `punch` are trio shells around them, over the streams of `ways`; `service` is the whole.
"""
