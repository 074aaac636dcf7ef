"""Training of the embedded models from data that ships in Python packages; needs the `train` extra.

`python -m workloads.train text|image|embed` retrains one model and rewrites its directory under
`workloads/models/`. Nothing outside this package imports torch, onnx or scikit-learn.
"""
