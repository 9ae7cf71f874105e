"""Rotary positions beside Llama's in Hugging Face's `transformers`, whose import takes seconds."""

import pytest
import torch

from tiny_transformer.embeddings.reference import rotate


def test_rotate_agrees_with_hugging_face_s_llama():
    pytest.importorskip("transformers", reason="pip install -e .[dev] brings it")
    from transformers import LlamaConfig
    from transformers.models.llama import modeling_llama as llama

    q, k = torch.randn(2, 4, 10, 8), torch.randn(2, 4, 10, 8)
    positions = torch.arange(3, 13)
    rotary = llama.LlamaRotaryEmbedding(LlamaConfig(hidden_size=32, num_attention_heads=4))
    expected = llama.apply_rotary_pos_emb(q, k, *rotary(q, positions[None]))
    torch.testing.assert_close((rotate(q, positions), rotate(k, positions)), expected)
