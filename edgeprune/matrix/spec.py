"""A matrix: what to prune, with what, and where to measure it; read from YAML and checked before anything runs.

Start with `load`. Every mistake is told with file, line, the wrong value, what is allowed, and the nearest right name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, ValidationError, model_serializer

from edgeprune import transport
from edgeprune.errors import MatrixError, UserError, nearest_hint
from edgeprune.lines import Lines, Place, explain, read
from edgeprune.matrix.checks import check_lists, check_names
from edgeprune.measuring import MeasurePlan, plan
from edgeprune.resources import matrices_folder
from edgeprune.schema import Variant
from edgeprune.transport import Device


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _as_named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _as_ratio(value: Any) -> float | dict[str, float]:
    """A fraction, or one for each layer; names such as 0, of a Sequential, are numbers in YAML."""
    if isinstance(value, Mapping) and value:
        return {str(layer): _as_fraction(one) for layer, one in value.items()}
    return _as_fraction(value)


def _as_fraction(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value < 1.0:
        raise ValueError("a pruning ratio is 0 <= ratio < 1")
    return float(value)


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataSpec(_Strict):
    """A dataset by name (`digits`); one that lies in files of the user's with its folder.

    The folder may begin with `~` and hold environment variables (`$CIFAR10`).
    """

    name: str
    folder: str | None = None

    @model_serializer
    def _written(self) -> str | dict[str, str]:
        # a name alone is written as a name, as matrices and manifests always had it
        return self.name if self.folder is None else {"name": self.name, "folder": self.folder}

    @property
    def label(self) -> str:
        """The name in tables: where a copy of a dataset lies does not make it another."""
        return self.name


def data_from_json(written: str | dict[str, str]) -> DataSpec:
    """A dataset as a matrix or a manifest says it."""
    return DataSpec.model_validate(_as_named(written))


Data = Annotated[DataSpec, BeforeValidator(_as_named)]


class ModelSpec(_Strict):
    """A model by name (`resnet20`), or a user's own `package.module:callable`, with options for its builder.

    With `data` it is trained on that dataset instead of the matrix's.
    """

    name: str
    data: Data | None = None
    input_shape: tuple[int, int, int] | None = None
    options: dict[str, str | int | float | bool] = {}

    @property
    def label(self) -> str:
        """The name in tables: options are part of it, since they make another network."""
        parts = [f"{key}={self.options[key]}" for key in sorted(self.options)]
        if self.input_shape is not None:
            parts.append("x".join(map(str, self.input_shape)))
        return f"{self.name}({','.join(parts)})" if parts else self.name

    @property
    def is_users_own(self) -> bool:
        """Whether the name says where to import from, and so runs a user's code."""
        return ":" in self.name


Ratio = Annotated[float | dict[str, float], PlainValidator(_as_ratio)]


class PruneSpec(_Strict):
    """Every combination of the lists is a recipe; for all models, or for those that `models` names.

    A scope that is left out is what the method's paper has. `options` are those of all methods of the entry. A ratio
    may be a mapping of layers to theirs: `{conv1: 0.5, conv2: 0.7}`; layers that it does not name stay whole. A method
    `package.module:function` is a criterion of the user's own; naming it runs their code. `align` is that of `shrink`,
    for the networks of this entry alone.
    """

    models: Annotated[list[str], BeforeValidator(_as_list)] = []
    method: Annotated[list[str], BeforeValidator(_as_list)] = Field(min_length=1)
    ratio: Annotated[list[Ratio], BeforeValidator(_as_list)] = Field(min_length=1)
    seed: Annotated[list[Annotated[int, Field(ge=0)]], BeforeValidator(_as_list)] = [0]
    scope: Annotated[list[Literal["local", "global"] | None], BeforeValidator(_as_list)] = [None]
    batchnorm: Literal["mask", "keep"] = "mask"
    align: Annotated[list[Literal[8, 16] | None], BeforeValidator(_as_list)] = [None]
    options: dict[str, str | int | float | bool] = {}


class TrainSpec(_Strict):
    """Changes to a training schedule (`edgeprune.training.Schedule`); what is left out keeps its default."""

    epochs: int | None = Field(default=None, ge=1)
    batch_size: int | None = Field(default=None, ge=1)
    peak_rate: float | None = Field(default=None, gt=0.0, allow_inf_nan=False)
    weight_decay: float | None = Field(default=None, ge=0.0, allow_inf_nan=False)
    patience: int | None = Field(default=None, ge=1)

    def changes(self) -> dict[str, int | float]:
        """Only the fields that are set."""
        return {name: value for name, value in self if value is not None}


class FineTuneSpec(TrainSpec):
    """Changes to the training after pruning; with no epochs there is none, and a network is measured as pruned."""

    epochs: int | None = Field(default=None, ge=0)


class ShrinkSpec(_Strict):
    """Options of `edgeprune.shrink` for the shrunk networks; what is left out keeps its default.

    With `constants: drop` the shrunk network is another one than the masked: its accuracy is measured on itself,
    and it is held to its own numbers (effects_of_structured_pruning_2022, figure 3: before and after the method).
    """

    additions: Literal["auto", "gather"] | None = None
    constants: Literal["exact", "drop"] | None = None
    method: Literal["connectivity", "gradient"] | None = None
    align: Literal[8, 16] | None = None
    columns: Literal["auto", "gather", "keep"] | None = None

    def changes(self) -> dict[str, str | int]:
        """Only the options that are set."""
        return {name: value for name, value in self if value is not None}


class MatrixSpec(_Strict):
    """The contents of a matrix file."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    data: Data
    models: Annotated[list[Annotated[ModelSpec, BeforeValidator(_as_named)]], BeforeValidator(_as_list)] = Field(
        min_length=1
    )
    prune: list[PruneSpec] = []
    variants: list[Variant] = Field(default=["dense", "masked", "shrunk"], min_length=1)
    runtimes: Annotated[list[str], BeforeValidator(_as_list)] = Field(min_length=1)
    devices: Annotated[list[Annotated[Device, BeforeValidator(_as_named)]], BeforeValidator(_as_list)] = Field(
        default=[Device(name=transport.LOCAL)], min_length=1
    )
    threads: Annotated[list[Annotated[int, Field(ge=1, le=1024)]], BeforeValidator(_as_list)] = [1]
    batch: Annotated[list[Annotated[int, Field(ge=1)]], BeforeValidator(_as_list)] = [1]
    measure: str | dict[str, int | float | str] = "standard"
    train: TrainSpec = TrainSpec()
    finetune: FineTuneSpec = FineTuneSpec()
    shrink: ShrinkSpec = ShrinkSpec()

    @property
    def plan(self) -> MeasurePlan:
        """How much is measured."""
        return plan(self.measure)

    def data_of(self, model: ModelSpec) -> DataSpec:
        """What a model is trained on and given."""
        return model.data or self.data


def find(name: str) -> Path:
    """The matrix file that `name` means: a path, or the name of one that edgeprune brings along (`quickstart`).

    Raises:
        MatrixError: there is none.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = {file.stem: file for file in matrices_folder().glob("*.yaml")}
    if path.suffix in ("", ".yaml") and path.parent == Path() and path.stem in shipped:
        return shipped[path.stem]
    raise MatrixError(
        f"no matrix file {name!r}", hint=nearest_hint(path.stem, sorted(shipped)) + ", or the path of a YAML file"
    )


def load(path: Path) -> MatrixSpec:
    """Read and check a matrix file.

    Raises:
        MatrixError: unreadable, not YAML, or a key or value that is not allowed; the message names file and line.
    """
    content, lines = read(path, "a matrix", MatrixSpec, MatrixError)
    try:
        spec = MatrixSpec.model_validate(content)
    except ValidationError as error:
        raise explain(error, lines, _model_at, "benchmarks/matrices/quickstart.yaml") from None
    spec = _with_own_devices(spec, lines)
    check_names(spec, lines)
    check_lists(spec, lines)
    return spec


def with_devices(spec: MatrixSpec, devices: Sequence[str]) -> MatrixSpec:
    """The same matrix, measured on other devices; names of its own devices keep their meaning.

    Raises:
        UserError: no device of that name is known.
    """
    from edgeprune import emulation
    from edgeprune.compiling import fpga

    if not devices:
        raise UserError("--devices names no device", hint="allowed: " + ", ".join(transport.names()))
    found = []
    for name in dict.fromkeys(devices):
        try:
            if name in emulation.devices() or name in fpga.devices():
                found.append(next((one for one in spec.devices if one.name == name), Device(name=name)))
            else:
                found.append(transport.find(name, spec.devices))
        except UserError as error:
            raise UserError(f"--devices: {error.message}", hint=error.hint) from None
    return spec.model_copy(update={"devices": found})


def _with_own_devices(spec: MatrixSpec, lines: Lines) -> MatrixSpec:
    """The matrix with what the user's own file says of the devices that it names."""
    devices = [transport.completed(device) for device in spec.devices]
    return spec.model_copy(update={"devices": devices})


def _model_at(where: Place) -> type[BaseModel]:
    names: Mapping[str | int, type[BaseModel]] = {
        "data": DataSpec,
        "models": ModelSpec,
        "devices": Device,
        "prune": PruneSpec,
        "train": TrainSpec,
        "finetune": FineTuneSpec,
        "shrink": ShrinkSpec,
    }
    if "data" in where:
        return DataSpec
    return names[where[0]] if where else MatrixSpec
