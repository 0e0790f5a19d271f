"""Causal prefill attention of cuDNN through PyTorch, for attend_prefill_cuda_bench.ts.

usage: attend_prefill_peer.py HEADS,KV_HEADS,HEAD_DIM,TOKENS ...   prints the median milliseconds of each, one a line;
nan where cuDNN does not take the shape
"""
import statistics
import sys

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

for shape in sys.argv[1:]:
    heads, kv_heads, head_dim, tokens = map(int, shape.split(","))
    q, k, v = (torch.randn(1, h, tokens, head_dim, device="cuda", dtype=torch.bfloat16) for h in (heads, kv_heads, kv_heads))
    times = []
    try:
        with sdpa_kernel([SDPBackend.CUDNN_ATTENTION]):
            for i in range(2 + max(3, min(30, 10 * 16384**2 // tokens**2))):
                start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                start.record()
                F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=heads != kv_heads)
                end.record()
                times.append((start, end))
    except RuntimeError:
        print("nan", flush=True)
        continue
    torch.cuda.synchronize()
    print(statistics.median(start.elapsed_time(end) for start, end in times[2:]), flush=True)
