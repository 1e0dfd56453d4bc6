"""Models that smaller ones are made of: tiny ones where the well-known are large, with numbers as of trained ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

Trained = tuple[nn.Module, Any]
"""A model and an example of what it is called with."""


class UNet(nn.Module):
    """Two levels, with concatenations, norms of groups and transposed convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.deep, self.middle = self.layer(3, 8), self.layer(8, 16), self.layer(16, 32)
        self.up1, self.join1 = nn.ConvTranspose2d(32, 16, 2, 2), self.layer(32, 16)
        self.up2, self.join2 = nn.ConvTranspose2d(16, 8, 2, 2), self.layer(16, 8)
        self.out = nn.Conv2d(8, 2, 1)

    @staticmethod
    def layer(read: int, made: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(read, made, 3, padding=1), nn.GroupNorm(4, made), nn.SiLU())

    def forward(self, x: Tensor) -> Tensor:
        down = self.down(x)
        deep = self.deep(functional.max_pool2d(down, 2))
        y = self.up1(self.middle(functional.max_pool2d(deep, 2)))
        y = self.up2(self.join1(torch.cat([y, deep], 1)))
        return self.out(self.join2(torch.cat([y, down], 1)))  # type: ignore[no-any-return]


class Recurrent(nn.Module):
    """Two layers of an LSTM or its kin behind an embedding."""

    def __init__(self, kind: type[nn.RNNBase] = nn.LSTM, **kwargs: Any) -> None:
        super().__init__()
        self.table, self.recurrent = nn.Embedding(50, 16), kind(16, 24, 2, batch_first=True, **kwargs)  # type: ignore[arg-type]
        self.head = nn.Linear(kwargs.get("proj_size", 24) * (2 if kwargs.get("bidirectional") else 1), 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.recurrent(self.table(x))[0][:, -1])  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """Torch's own transformer."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.table, self.encoder, self.head = nn.Embedding(50, 16), nn.TransformerEncoder(layer, 2), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.table(x)).mean(1))  # type: ignore[no-any-return]


def torchvision(name: str, size: int = 32, **kwargs: Any) -> Trained:
    models = pytest.importorskip("torchvision.models")
    if name.startswith("deeplab"):
        return getattr(models.segmentation, name)(weights=None, weights_backbone=None), torch.randn(2, 3, size, size)
    return getattr(models, name)(**kwargs), torch.randn(2, 3, size, size)


def tiny_swin() -> Trained:
    models = pytest.importorskip("torchvision.models")
    net = models.SwinTransformer([4, 4], 24, [2, 2], [3, 6], [4, 4], num_classes=10)
    return net, torch.randn(2, 3, 32, 32)


def tiny_vit() -> Trained:
    models = pytest.importorskip("torchvision.models")
    net = models.VisionTransformer(32, 8, num_layers=2, num_heads=4, hidden_dim=48, mlp_dim=96, num_classes=10)
    return net, torch.randn(2, 3, 32, 32)


def tokens(length: int = 12) -> Tensor:
    return torch.randint(3, 100, (2, length), generator=torch.Generator().manual_seed(0))


def language(name: str, config: str, example: Callable[[], dict[str, Any]], **kwargs: Any) -> Trained:
    transformers = pytest.importorskip("transformers")
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    model = getattr(transformers, name)(getattr(transformers, config)(**special, **kwargs))
    model.config.use_cache = False
    return model, example()


def of_timm(name: str, size: int = 32, **kwargs: Any) -> Trained:
    timm = pytest.importorskip("timm")
    return timm.create_model(name, num_classes=10, **kwargs), torch.randn(2, 3, size, size)


LLAMA: dict[str, Any] = {
    "vocab_size": 100,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 64,
}
T5: dict[str, Any] = {"vocab_size": 100, "d_model": 48, "d_kv": 12, "d_ff": 80, "num_layers": 2, "num_heads": 4}
WHISPER: dict[str, Any] = {
    "vocab_size": 100,
    "num_mel_bins": 8,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "d_model": 48,
    "encoder_ffn_dim": 80,
    "decoder_ffn_dim": 80,
    "max_source_positions": 20,
    "max_target_positions": 20,
    "decoder_start_token_id": 1,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
}
BERT: dict[str, Any] = {
    "vocab_size": 100,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}

MODELS: Mapping[str, Callable[[], Trained]] = {
    "resnet18": lambda: torchvision("resnet18"),
    "unet": lambda: (UNet(), torch.randn(2, 3, 16, 16)),
    "lstm": lambda: (Recurrent(), tokens(7) % 50),
    "encoder": lambda: (Encoder(), tokens(7) % 50),
    "vit": tiny_vit,
    "gpt2": lambda: language(
        "GPT2LMHeadModel",
        "GPT2Config",
        lambda: {"input_ids": tokens()},
        vocab_size=100,
        n_positions=32,
        n_embd=48,
        n_layer=2,
        n_head=4,
    ),
    "llama": lambda: language("LlamaForCausalLM", "LlamaConfig", lambda: {"input_ids": tokens()}, **LLAMA),
}
"""Those that the ordinary tests look at."""

MORE: Mapping[str, Callable[[], Trained]] = {
    "bidirectional": lambda: (Recurrent(nn.GRU, bidirectional=True), tokens(7) % 50),
    "projected": lambda: (Recurrent(proj_size=8), tokens(7) % 50),
    "swin": tiny_swin,
    "mobilenet_v3_small": lambda: torchvision("mobilenet_v3_small"),
    "bert": lambda: language(
        "BertForSequenceClassification",
        "BertConfig",
        lambda: {"input_ids": tokens(), "attention_mask": torch.ones(2, 12, dtype=torch.long)},
        **BERT,
    ),
    "resnet50": lambda: torchvision("resnet50"),
    "densenet121": lambda: torchvision("densenet121"),
    "efficientnet_b0": lambda: torchvision("efficientnet_b0"),
    "convnext_tiny": lambda: torchvision("convnext_tiny"),
    "swin_t": lambda: torchvision("swin_t"),
    "deeplabv3_resnet50": lambda: torchvision("deeplabv3_resnet50"),
    "shufflenet_v2_x0_5": lambda: torchvision("shufflenet_v2_x0_5"),
    "regnet_y_400mf": lambda: torchvision("regnet_y_400mf"),
    "qwen3": lambda: language("Qwen3ForCausalLM", "Qwen3Config", lambda: {"input_ids": tokens()}, **LLAMA),
    "t5": lambda: language(
        "T5ForConditionalGeneration",
        "T5Config",
        lambda: {"input_ids": tokens(), "decoder_input_ids": tokens(7)},
        feed_forward_proj="gated-gelu",
        **T5,
    ),
    "whisper": lambda: language(
        "WhisperForConditionalGeneration",
        "WhisperConfig",
        lambda: {"input_features": torch.randn(2, 8, 40), "decoder_input_ids": tokens(7)},
        **WHISPER,
    ),
    "timm vit": lambda: of_timm("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2),
    "timm convnext": lambda: of_timm("convnext_atto"),
    "timm mobilenet": lambda: of_timm("mobilenetv3_small_050"),
    "timm resnetv2": lambda: of_timm("resnetv2_50", size=64),
}
"""Those that the slow tests look at too."""


def trained(name: str) -> Trained:
    """A model by its name, in evaluation mode, with numbers as of one that was trained."""
    torch.manual_seed(0)
    model, example = {**MODELS, **MORE}[name]()
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.is_floating_point() and tensor.dim() == 1:
                tensor.add_(torch.rand_like(tensor) * 0.4)
            elif isinstance(tensor, nn.Parameter) and tensor.is_floating_point() and not bool((tensor != 0).any()):
                tensor.normal_(std=0.1)
    return model.eval(), example


def called(model: nn.Module, example: Any) -> Tensor:
    """The first tensor that a model returns."""
    found = model(**example) if isinstance(example, Mapping) else model(example)
    while not isinstance(found, Tensor):
        found = next(iter(found.values())) if isinstance(found, Mapping) else found[0]
    return found
