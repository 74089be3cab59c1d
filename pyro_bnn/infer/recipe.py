"""A recipe: one inference method with its settings, as a validated TOML file."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self, get_args

from pydantic import Field, ValidationError, model_validator

from pyro_bnn.errors import UserError
from pyro_bnn.infer.settings import GUIDES, KERNELS, AnyGuide, AnyKernel, ChEESSettings, Table
from pyro_bnn.infer.settings.orbit import OrbitSettings
from pyro_bnn.infer.settings.quotient import QuotientSettings
from pyro_bnn.infer.settings.start import StartSettings
from pyro_bnn.logdensity import WORTH_COMPILING

__all__ = ["QuotientSettings", "Recipe", "RunSettings"]


class RunSettings(Table):
    """Table ``[run]`` of a recipe."""

    chains: int = Field(16, ge=1, description="Chains, moved together as one batch.")
    block: int | None = Field(
        None,
        ge=1,
        description="Chains or members of a task, which adapt together and have a seed of their "
        "own; all by default. Draws depend on it, not on the machines that do the tasks.",
    )
    draws: int = Field(150, ge=1, description="Draws of each chain after warm-up.")
    warmup: int = Field(150, ge=0, description="Steps of warm-up.")
    seed: int = Field(0, ge=0, lt=2**63, description="Of every random number of the run.")
    device: str = Field(
        "cpu",
        pattern="^[a-z]+(:[0-9]+)?$",
        description="torch device: cpu, cuda, cuda:1, ...",
    )
    threads: int = Field(
        0,
        ge=0,
        description="CPU threads; 0 uses the cores that are idle at the start, but no more than "
        "OMP_NUM_THREADS says.",
    )
    compile: Literal["auto", "always", "never"] = Field(
        "auto",
        description="Compile the gradient; auto, where the run is long enough to pay for it.",
    )
    segment_draws: int = Field(
        50, ge=1, description="Draws between two saves; a kill loses at most these."
    )
    likelihood_temperature: float = Field(
        1.0, gt=0, description="Divides the log likelihood alone."
    )
    chunk_rows: int | None = Field(
        None, ge=1, description="Rows whose likelihood is in memory at a time; all by default."
    )
    posterior_temperature: float = Field(
        1.0, gt=0, description="Divides the log posterior; below 1, a cold posterior."
    )


class Recipe(Table):
    """One method: a kernel or a guide, how long it runs, and the canonical form of its draws.

    Attributes
    ----------
    kernel : KernelSettings, optional
        The sampler; ChEES, if there is no guide either.
    guide : GuideSettings, optional
        The guide instead; its members are the chains of the run.
    run : RunSettings
        Chains, draws, seed, device.
    start : StartSettings
        Where the chains of a kernel begin.
    orbit : OrbitSettings
        Their moves along the orbits of the symmetries.
    quotient : QuotientSettings
        The canonical form.
    """

    kernel: AnyKernel | None = Field(None, discriminator="name")
    guide: AnyGuide | None = Field(None, discriminator="name")
    run: RunSettings = Field(default_factory=RunSettings)
    start: StartSettings = Field(default_factory=lambda: StartSettings(**{"from": "prior"}))
    orbit: OrbitSettings = Field(default_factory=OrbitSettings)
    quotient: QuotientSettings = Field(default_factory=QuotientSettings)

    @model_validator(mode="after")
    def _refuse_starts_that_do_not_fit(self) -> Self:
        if self.guide is not None and (self.start.source != "prior" or self.orbit.every):
            raise ValueError("the tables [start] and [orbit] belong to [kernel], not to [guide]")
        if self.kernel is not None and self._smallest_batch() < self.kernel.least_chains:
            where = "" if self.run.block is None else f" in blocks of {self.run.block}"
            raise ValueError(
                f"{self.kernel.name} learns across {self.kernel.least_chains} chains or more, and "
                f"run.chains = {self.run.chains}{where} leaves one alone: give another number, or "
                "take a recipe whose chains need no others, such as hmc.toml"
            )
        if self.start.source == "ensemble" and self.run.chains % self.start.members:
            raise ValueError(
                f"run.chains = {self.run.chains} is no multiple of "
                f"start.members = {self.start.members}"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _one_method(cls, tables: Any) -> Any:
        if tables.get("kernel") is None and tables.get("guide") is None:
            return {**tables, "kernel": ChEESSettings()}
        if tables.get("kernel") is not None and tables.get("guide") is not None:
            raise ValueError(
                "a recipe has one method: give the table [kernel] or [guide], not both"
            )
        return tables

    @property
    def rows_of_a_step(self) -> int | None:
        """Rows of the minibatches that the method takes; None for all."""
        method = self.guide if self.guide is not None else self.kernel
        return getattr(method, "batch_size", None)

    def compiles(self, rows: int) -> bool:
        """Whether gradients are compiled: a matter of recipe and data alone, so that runs repeat.

        Parameters
        ----------
        rows : int
            Rows of the training data, on which the steps of a guide's epoch depend.
        """
        if self.run.compile == "auto":
            return self.expected_gradients(rows) >= WORTH_COMPILING
        return self.run.compile == "always"

    def why_compiled(self, rows: int) -> str:
        """Say in a few words whether gradients are compiled, and why; see `compiles`."""
        chosen = "compiled" if self.compiles(rows) else "not compiled"
        if self.run.compile != "auto":
            return f"{chosen}, as run.compile = {self.run.compile} asks"
        return (
            f"{chosen}: some {self.expected_gradients(rows):,} are expected, and it pays from "
            f"{WORTH_COMPILING:,} on"
        )

    def expected_gradients(self, rows: int) -> int:
        """Count the gradients of the run, of all chains, as far as the recipe tells."""
        if self.guide is not None:
            each = self.guide.least_gradients(rows)
        else:
            assert self.kernel is not None
            each = (self.run.warmup + self.run.draws) * self.kernel.expected_gradients
        return self.run.chains * each

    def _smallest_batch(self) -> int:
        """Count the chains of the smallest block."""
        block = min(self.run.block or self.run.chains, self.run.chains)
        return self.run.chains % block or block

    @property
    def method(self) -> str:
        """Name of the kernel or the guide."""
        chosen = self.guide or self.kernel
        assert chosen is not None
        return chosen.name

    @classmethod
    def read(cls, path: Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
        """Read a TOML file and lay single values over it.

        Parameters
        ----------
        path : Path
            The file.
        overrides : mapping, optional
            Dotted keys (``"run.chains"``) to values.

        Raises
        ------
        UserError
            If the file is missing or not TOML, a key is unknown or a value out of range; the
            sentence names the file, the key and, for unknown keys, the nearest known one.
        """
        try:
            # Some editors begin a file with a byte order mark.
            tables = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        except OSError as error:
            raise UserError(f"recipe {path} cannot be read: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UserError(f"recipe {path} is not valid TOML: {error}") from error
        return cls.parse(tables, str(path), overrides)

    @classmethod
    def parse(
        cls, tables: dict[str, Any], source: str, overrides: Mapping[str, Any] | None = None
    ) -> Recipe:
        """Validate tables that `source` gave, single values laid over them; see `read`."""
        for key, value in (overrides or {}).items():
            table, _, name = key.rpartition(".")
            tables.setdefault(table, {})
            if not table or not isinstance(tables[table], dict):
                raise UserError(_unknown(key, "the command line", cls._known_keys()))
            tables[table][name] = value
        try:
            return cls.model_validate(tables)
        except ValidationError as error:
            sentence = _sentence(error, source, cls._known_keys(), overrides or {})
            raise UserError(sentence) from error

    def tables(self) -> dict[str, dict[str, Any]]:
        """Return every setting that has a value, by table and key."""
        return self.model_dump(exclude_none=True, by_alias=True)

    def to_toml(self) -> str:
        """Return every setting, defaults included, as TOML."""
        lines: list[str] = []
        for table, values in self.tables().items():
            lines += [f"[{table}]", *(f"{k} = {_written(v)}" for k, v in values.items()), ""]
        return "\n".join(lines)

    @classmethod
    def documentation(cls) -> dict[str, list[tuple[str, str, str]]]:
        """List every key with its default and its meaning, by table.

        A table that comes in kinds, as ``[kernel]`` does, is listed once for each of them, under
        its head and the name of the kind.
        """
        return {
            heading: [
                (f"{table}.{field.alias or name}", repr(field.default), field.description or "")
                for name, field in kind.model_fields.items()
            ]
            for table, heading, kind in cls._tables()
        }

    @classmethod
    def _tables(cls) -> Iterator[tuple[str, str, type[Table]]]:
        """Name, heading and class of every table."""
        for table, field in cls.model_fields.items():
            kinds = list(_table_types(field.annotation))
            for kind in kinds:
                head = f"[{table}]"
                if len(kinds) > 1:
                    head += f' name = "{kind.model_fields["name"].default}"'
                yield table, head, kind

    @classmethod
    def _known_keys(cls) -> list[str]:
        rows = (row for table in cls.documentation().values() for row in table)
        return list(dict.fromkeys(key for key, _, _ in rows))


def _written(value: Any) -> str:
    """Return a value as TOML, which is JSON but for tables and what strings may hold."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_written(k)} = {_written(v)}' for k, v in value.items())}}}"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _table_types(annotation: Any) -> Iterator[type[Table]]:
    """Go through the tables that an annotation names: one, a union of them, or None beside."""
    if isinstance(annotation, type) and issubclass(annotation, Table):
        yield annotation
    for part in get_args(annotation):
        yield from _table_types(part)


def _sentence(
    error: ValidationError, source: str, known: list[str], overrides: Mapping[str, Any]
) -> str:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    table = path[0] if path else ""
    if table in ("kernel", "guide"):
        del path[1:2]  # the value of the discriminator, as in ("kernel", "hmc", "jitter")
    key = ".".join(path)
    if key in overrides:
        source = "the command line"
    kinds: Mapping[str, type[Table]] = GUIDES if table == "guide" else KERNELS
    if first["type"] == "extra_forbidden" and key in known:
        name = str(first["loc"][1])
        keys = kinds[name].model_fields
        return f"{source}: {table} '{name}' has no key '{key}'; it knows {', '.join(keys)}"
    if first["type"] == "extra_forbidden":
        return _unknown(key, source, known)
    if first["type"].startswith("union_tag"):
        return f"{source}: {table}.name is missing or unknown; the {table}s are {', '.join(kinds)}"
    if first["type"] == "value_error":
        return f"{source}: {first['ctx']['error']}"
    message = first["msg"][:1].lower() + first["msg"][1:]
    return f"{source}: {key} = {first['input']!r}: {message}"


def _unknown(key: str, source: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, 1, cutoff=0.4)
    hint = f"did you mean '{near[0]}'?" if near else f"the keys are {', '.join(known)}"
    return f"{source}: unknown key '{key}'; {hint}"
