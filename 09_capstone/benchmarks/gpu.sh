#!/bin/sh
# Everything that needs a graphics card, in about ten minutes: the peer by nanoGPT's GPU recipe and
# preset gpu, one after the other, then how fast and in how much memory each takes a step.
# Run it in the activated environment, with the development extras: sh 09_capstone/benchmarks/gpu.sh
set -eu
cd "$(dirname "$0")"
python -c 'import torch; torch.cuda.is_available() or exit("no CUDA device: this needs one")'
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv
python gpu_steps.py
python time_to_loss.py --recipe gpu --presets gpu --loss 1.4697 --seeds 1
