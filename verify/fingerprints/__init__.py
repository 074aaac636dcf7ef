"""How an answer is compared with what a juror computed: one module per fingerprint, one registry."""
