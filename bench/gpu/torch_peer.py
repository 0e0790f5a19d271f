"""Decode attention of cuDNN and products of cuBLAS through PyTorch, beside ours.

usage: torch_peer.py JOB ..., where JOB is HEADS,KV_HEADS,HEAD_DIM,BATCH,TOKENS or mm,TOKENS,ROWS,COLUMNS

Prints the versions, then for each job the median microseconds of a call from cold memory, one a line; nan where it cannot run.
Calls lie in a CUDA graph and take another copy of what they read each time, so that none is in the second-level cache.
"""
import statistics
import sys

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

# Bytes that the copies of an operand take together, far more than a second-level cache; and the most in all.
COLD_BYTES = 256 << 20
MOST_BYTES = 24 << 30
REPLAYS = 7


def graph_us(calls):
    """Median microseconds of one of the calls, which lie in one graph."""
    for call in calls[:2]:
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    times = []
    for _ in range(1 + REPLAYS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1000 / len(calls))
    return statistics.median(times[1:])


def copies(size):
    if size > MOST_BYTES:
        raise MemoryError(f"{size} bytes")
    return max(1, min(16, COLD_BYTES // size + 1))


def decode(heads, kv_heads, head_dim, batch, tokens):
    size = 4 * batch * tokens * kv_heads * head_dim
    sets = [
        [torch.randn(batch, kv_heads, tokens, head_dim, device="cuda", dtype=torch.bfloat16) for _ in range(2)]
        for _ in range(copies(size))
    ]
    q = torch.randn(batch, heads, 1, head_dim, device="cuda", dtype=torch.bfloat16)

    def call(k, v):
        with sdpa_kernel([SDPBackend.CUDNN_ATTENTION]):
            F.scaled_dot_product_attention(q, k, v, enable_gqa=heads != kv_heads)

    count = max(len(sets), min(32, int(5e10 / size)))
    return graph_us([lambda kv=sets[i % len(sets)]: call(*kv) for i in range(count)])


def product(tokens, rows, columns):
    size = 2 * rows * columns
    weights = [torch.randn(rows, columns, device="cuda", dtype=torch.bfloat16) for _ in range(copies(size))]
    x = torch.randn(tokens, columns, device="cuda", dtype=torch.bfloat16)
    count = max(len(weights), min(32, int(5e10 / size)))
    return graph_us([lambda w=weights[i % len(weights)]: F.linear(x, w) for i in range(count)])


def run(job):
    kind, *sizes = job.split(",")
    return product(*map(int, sizes)) if kind == "mm" else decode(int(kind), *map(int, sizes))


torch.manual_seed(1)
print(f"PyTorch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}", flush=True)
for job in sys.argv[1:]:
    try:
        us = run(job)
    except Exception as error:
        print(job, error, file=sys.stderr)
        us = float("nan")
    torch.cuda.empty_cache()
    print(us, flush=True)
