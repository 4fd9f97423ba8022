"""PyTorch modules with the state-dict keys and the computation of published code bases.

They are what checkpoints of those code bases are proven against: the quirks that leave no trace in
a key (what a shortcut reads, where its zeros stand, the order of a concatenation, which convolution
has the stride) are upstream's. The code is this package's own. Where upstream pools over a fixed
window at the end, the pooling here is global: the same at upstream's picture size, and possible at
every other. Sizes are arguments, so that tiny networks have the same names. Initial weights are
PyTorch's defaults.
"""
