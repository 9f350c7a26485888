"""Networks: (B, C, D, H, W) float32 to logits on the same grid. Nothing here knows files, cases or labels.

preset       a size and form of SegMamba by name (`presets`)
baseline     a network that SegMamba is compared with (`baselines`)
scan         Mamba's selective scan over tokens (B, L, C), with one back end a kind of machine (`scan`)
norm         instance norm with what follows it in a block (`norm`)
winograd     3x3x3 convolutions on a CPU without gradients (`winograd`)
transposed   2x2x2 transposed convolutions on a CPU without gradients (`transposed`)
choice       any of these networks as a configuration names it (`choice`)
"""
