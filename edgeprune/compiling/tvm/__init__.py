"""The runtime `tvm`: CNNs compiled without tuning. Start with `build.py`; a new operator is a rule in `ops.py`.

graph.py, rewrite.py                the network as ONNX says it, and rewrites of its weights
lower.py, ops.py, pooling.py        operator by operator into kernels on stored tensors (layout.py)
convolution.py, tile.py, gather.py  the kernels that matter
schedule.py                         in which order kernels compute
"""
