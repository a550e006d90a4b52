"""params.yaml, validated and frozen."""

import re
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from zoneinfo import available_timezones

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from quickstudy.errors import QuickstudyError

Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Splits(Section):
    key: str
    validation: Share
    test: Share

    @field_validator("test")
    @classmethod
    def _leaves_some_to_train_on(cls, value: float, info: ValidationInfo) -> float:
        if value + info.data.get("validation", 0) >= 1:
            raise ValueError("with splits.validation it leaves no groups to train on")
        return value


class ImageInput(Section):
    size: Annotated[int, Field(ge=16, le=512)]
    channels: Literal[1, 3]


class AudioInput(Section):
    sample_rate: Annotated[int, Field(ge=4000, le=48000)]
    seconds: Annotated[float, Field(ge=0.2, le=60)]  # the network halves the frames three times
    mels: Annotated[int, Field(ge=16, le=256)]


class TextInput(Section):
    encoder: Literal["all-MiniLM-L6-v2"]
    max_tokens: Annotated[int, Field(ge=8, le=512)]
    max_bytes: Annotated[int, Field(ge=8, le=4096)]
    word_buckets: Annotated[int, Field(ge=256, le=2**20)]


class Inputs(Section):
    image: ImageInput
    audio: AudioInput
    text: TextInput


class Episodes(Section):
    count: Annotated[int, Field(ge=2)]
    shots: tuple[Positive, ...] = Field(min_length=1)
    query: Positive
    way: Annotated[int, Field(ge=2)]
    ways: dict[str, Annotated[int, Field(ge=2)]]

    def way_of(self, dataset: str) -> int:
        return self.ways.get(dataset, self.way)


# A folder, or a name of the Hugging Face hub or of timm and, where it is not the newest, its revision.
PRETRAINED = re.compile(r"(?P<library>[a-z-]+):((\.{0,2}|~)/\S.*|[\w.-]+(/[\w.-]+)?(@[\w./-]+)?)")
LIBRARIES = {
    "image": ("timm", "transformers"),
    "audio": ("transformers",),
    "text": ("sentence-transformers", "transformers"),
}


class Encoders(Section):
    """One of the names, or LIBRARY:NAME of a pretrained model."""

    image: Literal["conv4", "resnet12"] | str
    audio: Literal["cnn", "gru", "lstm"] | str
    text: (
        Literal[
            "minilm",
            "minilm-layers",
            "minilm-tuned",
            "bytes-cnn",
            "bytes-gru",
            "bytes-lstm",
            "bytes-transformer",
            "words-cnn",
            "words-gru",
            "words-lstm",
            "words-transformer",
        ]
        | str
    )

    @classmethod
    def known(cls, modality: str) -> tuple[str, ...]:
        """Names of the encoders that are not pretrained elsewhere."""
        return get_args(get_args(cls.model_fields[modality].annotation)[0])

    @field_validator("*", mode="before")
    @classmethod
    def _is_known_or_pretrained(cls, value: Any, info: ValidationInfo) -> Any:
        modality = str(info.field_name)
        found = PRETRAINED.fullmatch(value) if isinstance(value, str) else None
        if value in cls.known(modality) or (found and found["library"] in LIBRARIES[modality]):
            return value
        names = ", ".join(repr(name) for name in cls.known(modality))
        patterns = " or ".join(f"{library}:NAME" for library in LIBRARIES[modality])
        raise PydanticCustomError("encoder", f"input should be {names} or, for a pretrained model, {patterns}")


class Model(Section):
    encoders: Encoders
    dimension: Annotated[int, Field(ge=8, le=8192)]
    width: Annotated[int, Field(ge=4, le=2048)]
    learner: Literal["protonet", "adapt", "film", "ridge", "kernel", "anil", "maml", "reptile", "incontext"]
    heads: Positive
    inner_steps: Annotated[int, Field(ge=0, le=1000)]
    second_order: bool

    @field_validator("heads")
    @classmethod
    def _divides_the_dimension(cls, value: int, info: ValidationInfo) -> int:
        if info.data.get("dimension", value) % value:
            raise ValueError(f"does not divide model.dimension = {info.data['dimension']}")
        return value


class PerModality(Section):
    image: Annotated[int, Field(ge=0)]
    audio: Annotated[int, Field(ge=0)]
    text: Annotated[int, Field(ge=0)]


class Train(Section):
    steps: Positive
    learning_rate: Annotated[float, Field(gt=0)]
    warmup: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: Annotated[float, Field(ge=0)]
    tasks: PerModality
    examples: PerModality
    shots: tuple[Positive, ...] = Field(min_length=1)
    query: Positive
    turns: Positive
    validate_every: Positive
    patience: Annotated[int, Field(ge=0)]
    checkpoint_every: Positive
    device: Literal["auto", "cpu", "cuda", "mps"]
    processes: Positive
    precision: Literal["auto", "float32", "bfloat16"]
    compile: bool
    threads: Annotated[int, Field(ge=0)]

    @field_validator("processes")
    @classmethod
    def _have_tasks(cls, value: int, info: ValidationInfo) -> int:
        if "tasks" in info.data and value > (tasks := sum(info.data["tasks"].model_dump().values())):
            raise ValueError(f"a meta-batch has {tasks} tasks (train.tasks), fewer than processes to share it")
        return value


class Evaluate(Section):
    baselines: bool
    scratch_episodes: Annotated[int, Field(ge=0)]
    scratch_steps: Positive
    timed_episodes: Annotated[int, Field(ge=0)]


Margin = Annotated[float, Field(ge=0, lt=1)]
Block = Annotated[str, Field(pattern=r"^[a-z0-9-]+/[a-z0-9-]+$")]
"""A block of Prefect's, by its type and name."""


class Gate(Section):
    score: Literal["superior", "non-inferior"]
    margin: Margin
    dataset_margin: Margin
    dataset_margins: dict[str, Margin]
    calibration_margin: Annotated[float, Field(ge=0)] | None
    latency: Annotated[float, Field(ge=1)] | None
    memory: Annotated[float, Field(ge=1)] | None
    baselines: bool
    over: Literal["datasets", "groups", "episodes"]
    confidence: Annotated[float, Field(ge=0.5, lt=1)]
    looks: Positive
    promotion: Literal["automatic", "manual"]
    deadline: Annotated[float, Field(gt=0)]
    notify: tuple[Block, ...]

    def margin_of(self, dataset: str) -> float:
        return self.dataset_margins.get(dataset, self.dataset_margin)


class Ledger(Section):
    key: str | None = None
    signers: str | None = None
    anchor: bool = True
    remote: str | None = None


class Drift(Section):
    significance: Share
    auc: Annotated[float, Field(ge=0.5, le=1)]
    examples: Positive
    fewest: Annotated[int, Field(ge=2)]
    permutations: Annotated[int, Field(ge=19)]


class Reproduce(Section):
    bound: Share
    dataset_bound: Share
    episodes: Annotated[int, Field(ge=2)]


Hours = Annotated[float, Field(gt=0)]


class Runs(Section):
    schedule: str | None
    timezone: str
    ref: Annotated[str, Field(min_length=1)]
    train_on: Literal["gpu", "here"]
    second: Literal["wait", "skip"]
    restarts: Annotated[int, Field(ge=0)]
    hours: dict[str, Hours]
    branch: bool
    push: bool
    notify: tuple[Block, ...]

    def limit(self, step: str) -> float:
        """Return the seconds that a step may take; a stage of a kind, STAGE@KIND, as long as STAGE."""
        return 3600 * self.hours.get(step.partition("@")[0], self.hours["other"])

    @field_validator("hours")
    @classmethod
    def _say_how_long_the_others(cls, value: dict[str, float]) -> dict[str, float]:
        if "other" not in value:
            raise ValueError("it lacks 'other', for the steps that it does not name")
        return value

    @field_validator("timezone")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if value not in available_timezones():
            raise ValueError("no such time zone; say UTC or one like Europe/Berlin")
        return value


class Watch(Section):
    inbox: Annotated[str, Field(min_length=1)]
    quiet: Annotated[float, Field(ge=0, le=3600)]
    every: Annotated[float, Field(ge=1)]
    memory: Annotated[float, Field(gt=0)]
    minutes: Annotated[float, Field(gt=0)]
    retrain: Literal["changed", "drift", "never"]


class Serve(Section):
    false_alarm: Share
    database: str | None
    reload: Annotated[float, Field(ge=0.1)]
    batch: Positive
    wait: Annotated[float, Field(ge=0, le=1000)]
    threads: Annotated[int, Field(ge=0)]
    precision: Literal["auto", "float32", "bfloat16"]
    memory: Positive
    patience: Annotated[float, Field(ge=0)]
    grace: Positive
    body: Positive
    upload: Annotated[float, Field(gt=0)]
    examples: Annotated[int, Field(ge=2)]
    classes: Annotated[int, Field(ge=2)]
    queries: Positive
    characters: Positive
    pixels: Positive
    seconds: Annotated[float, Field(gt=0)]
    request_pixels: Positive
    request_seconds: Annotated[float, Field(gt=0)]
    budget: Annotated[float, Field(gt=0)] | None
    credit: Annotated[float, Field(gt=0)]
    waiting: Positive
    held: Positive
    deadline: Annotated[float, Field(gt=0)]
    stuck: Annotated[float, Field(gt=0)]
    rate: Annotated[float, Field(gt=0)] | None
    burst: Positive
    tries: Positive
    proxies: tuple[str, ...]
    connections: Annotated[int, Field(ge=8)]
    connections_each: Positive
    head: Annotated[float, Field(gt=0)]
    idle: Annotated[float, Field(gt=0)]
    unread: Annotated[float, Field(gt=0)]
    bodies: Positive
    answer: Positive
    task: Positive
    tenant: Positive
    cors: tuple[str, ...]
    certificate: str | None
    certificate_key: str | None


class Chat(Section):
    close: Share
    false_alarm: Share


class Settings(Section):
    """All of params.yaml."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    splits: Splits
    inputs: Inputs
    episodes: Episodes
    model: Model
    train: Train
    evaluate: Evaluate
    gate: Gate
    ledger: Ledger = Ledger()
    drift: Drift
    reproduce: Reproduce
    serve: Serve
    chat: Chat
    runs: Runs
    watch: Watch
    kinds: dict[str, dict[str, Any]]

    def of(self, kind: str) -> "Settings":
        """Return the settings of a kind: what ``kinds.KIND`` says instead of the sections above it.

        Raises:
            QuickstudyError: the kind is not listed, or sets what there is not.
        """
        if kind not in self.kinds:
            raise QuickstudyError(
                f"params.yaml lists no kind {kind!r}, but {', '.join(self.kinds)}",
                where="kinds",
                fix=_closest(kind, self),
            )
        values = self.model_dump(mode="json")
        _merge(values, self.kinds[kind])
        return _checked(values, f"kinds.{kind}")


def _merge(values: dict[str, Any], changes: dict[str, Any]) -> None:
    """Put changes, section by section, in the place of what is there."""
    for name, change in changes.items():
        if isinstance(change, dict) and isinstance(values.get(name), dict):
            _merge(values[name], change)
        else:
            values[name] = change


def _closest(kind: str, settings: Settings) -> str:
    near = get_close_matches(kind, settings.kinds, 1)
    return f"Did you mean {near[0]}?" if near else "Add it there"


def load_settings(path: Path = Path("params.yaml")) -> Settings:
    """Read and check params.yaml.

    Raises:
        QuickstudyError: naming the parameter, what is wrong with it and, where it is unknown, the known ones.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise QuickstudyError("not found", where=path, fix="Run the command in the project's folder") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise QuickstudyError(f"is not YAML ({error})", where=path) from None
    return _checked(values, path)


def changed(settings: Settings, parameter: str, value: Any, where: object = None) -> Settings:
    """The settings with one parameter changed, named by its path ("train.steps"), checked as params.yaml is.

    Args:
        value: as YAML gives it.
        where: what asks for the change, for the error.

    Raises:
        QuickstudyError: as `load_settings` does.
    """
    values = settings.model_dump(mode="json")
    section: Any = values
    *sections, last = parameter.split(".")
    for part in sections:
        section = section.setdefault(part, {})
        if not isinstance(section, dict):
            raise QuickstudyError(f"unknown parameter {parameter!r}. {part} has no parts", where=where)
    section[last] = value
    return _checked(values, where)


def _checked(values: Any, where: object) -> Settings:
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise QuickstudyError(_first_mistake(error, values), where=where) from None


def _first_mistake(error: ValidationError, values: Any) -> str:
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"]) or "the file"
    if first["type"] == "extra_forbidden":
        section: Any = Settings
        for part in first["loc"][:-1]:
            section = section.model_fields[part].annotation
        return f"unknown parameter {name!r}. Known here: {', '.join(section.model_fields)}"
    if first["type"] == "missing":
        return f"parameter {name!r} is missing. Add it; the repository's params.yaml shows every one"
    return f"{name} = {first['input']!r}: {first['msg'].removeprefix('Value error, ').lower()}"
