"""The job market: how a node asks (requester), answers (worker) and checks (juror)."""
