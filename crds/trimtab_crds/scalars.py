"""Scalar types with their bounds, shared by both resources. No floats: integers with the unit in the field's name."""

from typing import Annotated

from pydantic import Field

#: DNS label (RFC 1123): names of tiers, classes and accelerators.
Label = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
Percent = Annotated[int, Field(ge=0, le=100)]
Tokens = Annotated[int, Field(ge=0, le=10_000_000)]
PositiveTokens = Annotated[int, Field(ge=1, le=10_000_000)]
Seconds = Annotated[int, Field(ge=1, le=86_400)]
Milliseconds = Annotated[int, Field(ge=1, le=600_000)]
Replicas = Annotated[int, Field(ge=0, le=1000)]
Gpus = Annotated[int, Field(ge=0, le=100_000)]
#: One word of a command line.
Argument = Annotated[str, Field(min_length=1, max_length=4096)]
#: The `model` of an OpenAI request.
ModelName = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^\S+$")]
