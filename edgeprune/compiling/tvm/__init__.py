"""The runtime `tvm`: CNNs compiled without tuning. Start with `build.py`; a new operator is a rule in `ops.py`.

graph.py                                 the network as ONNX says it
rewrite.py, channels.py, additions.py,
folding.py, groups.py                    rewrites of it that need arrays only
lower.py, ops.py, pooling.py,
activations.py, resizing.py, softmax.py  operator by operator into kernels on stored tensors (layout.py)
convolution.py, grouped.py, tile.py      the kernels that matter
transposed.py                            transposed convolutions as ordinary ones
exponential.py                           exp, sigmoid and tanh of whole vectors
winograd*.py                             3x3 convolutions with fewer multiplications
index_addition.py, slots.py, gather.py   kernels that move channels, in which nothing is moved twice
form.py, tuned.py, tuning.py, rpc.py     orders of loops found by trying them on the device, where that is asked for
schedule.py                              in which order kernels compute
"""
