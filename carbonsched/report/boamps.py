"""A BoAmps report (Boavizta's data model for the energy of AI tasks) of one job. Its schema is implemented here as models.

Unknown fields are left out: the model has no value for unknown, and the text of a required field says if it is unknown.
Energy is that of the metered parts, without PUE. Model: github.com/Boavizta/BoAmps, model/report_schema.json as of April 2026.
"""

import platform
import uuid
from collections import Counter
from pathlib import PurePath
from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from carbonsched import __version__
from carbonsched.errors import InputError
from carbonsched.feeds.countries import country_called
from carbonsched.ledger.ledger import Ledger
from carbonsched.model.base import Doc
from carbonsched.model.energy import EnergyMethod
from carbonsched.report.document import Report
from carbonsched.report.format import ReportFormat
from carbonsched.units import J_PER_KWH

_VERSION: Final = "1.1.0"
_URI: Final = "https://github.com/Boavizta/BoAmps/tree/main/model"
_NAMESPACE: Final = uuid.UUID("4f8f7a3e-5f0b-5c8e-9d0a-2b9f6c1d7e55")
_FILES: Final = frozenset({"json", "csv", "parquet", "arrow"})
"""Data formats of the schema that a job's data may have."""
Unit = Annotated[float, Field(ge=0, le=1)]


class _Part(Doc):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class Publisher(_Part):
    """The publisher.

    Example:
        >>> Publisher(confidentiality_level="internal").confidentiality_level
        'internal'
    """

    name: str | None = None
    division: str | None = None
    project_name: str | None = None
    confidentiality_level: Literal["public", "internal", "confidential", "secret"]
    public_key: str | None = None


class Header(_Part):
    """The header of the report itself.

    Example:
        >>> Header(report_datetime="2026-11-28 12:00:00").report_status is None
        True
    """

    licensing: str | None = None
    format_version: str | None = None
    format_version_specification_uri: str | None = None
    report_id: str | None = None
    report_datetime: str
    report_status: Literal["draft", "final", "corrective", "other"] | None = None
    publisher: Publisher | None = None


class Algorithm(_Part):
    """The model and the method of the training.

    Example:
        >>> Algorithm(foundation_model_name="HuggingFaceTB/SmolLM2-135M").framework is None
        True
    """

    training_type: str | None = None
    algorithm_type: str | None = None
    algorithm_name: str | None = None
    algorithm_uri: str | None = None
    foundation_model_name: str | None = None
    foundation_model_uri: str | None = None
    parameters_number: float | None = None
    """Billions."""
    framework: str | None = None
    framework_version: str | None = None
    class_path: str | None = None
    layers_number: float | None = None
    epochs_number: float | None = None
    optimizer: str | None = None
    quantization: str | None = None


class Dataset(_Part):
    """The training data.

    Example:
        >>> Dataset(data_usage="input", data_type="text").source is None
        True
    """

    data_usage: Literal["input", "output"]
    data_type: Literal[
        "tabular", "audio", "boolean", "image", "video", "object", "text", "token", "word", "other"
    ]
    data_format: Literal["json", "csv", "parquet", "arrow", "text", "other"] | None = None
    """Of the schema's many formats only those that a job's data may have."""
    data_size: float | None = None
    data_quantity: float | None = None
    shape: str | None = None
    source: Literal["public", "private", "other"] | None = None
    source_uri: str | None = None
    owner: str | None = None


class Task(_Part):
    """The task.

    Example::

        task = Task(task_stage="finetuning", task_family="summarization", algorithms=(algorithm,), dataset=(data,))
    """

    task_stage: str
    task_family: str
    nb_request: float | None = None
    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1)]
    dataset: Annotated[tuple[Dataset, ...], Field(min_length=1)]
    measured_accuracy: Unit | None = None
    estimated_accuracy: Literal["veryPoor", "poor", "average", "good", "veryGood"] | None = None
    task_description: str | None = None


class Measure(_Part):
    """Energy by one method of measurement.

    Example:
        >>> Measure(measurement_method="carbonsched", power_consumption=1.5).power_consumption
        1.5
    """

    measurement_method: str
    manufacturer: str | None = None
    version: str | None = None
    cpu_tracking_mode: str | None = None
    gpu_tracking_mode: str | None = None
    average_utilization_cpu: Unit | None = None
    average_utilization_gpu: Unit | None = None
    power_calibration_measurement: float | None = None
    duration_calibration_measurement: float | None = None
    power_consumption: float
    """kWh."""
    measurement_duration: float | None = None
    """Seconds."""
    measurement_date_time: str | None = None


class System(_Part):
    """The operating system.

    Example:
        >>> System(os="Linux").os
        'Linux'
    """

    os: str
    distribution: str | None = None
    distribution_version: str | None = None


class Software(_Part):
    """The programming language.

    Example:
        >>> Software(language="python").language
        'python'
    """

    language: str
    version: str | None = None


class Component(_Part):
    """A part of the box; there are `nb_component` of it.

    Example:
        >>> Component(component_type="gpu", nb_component=8).nb_component
        8
    """

    component_name: str | None = None
    component_type: str
    nb_component: int
    memory_size: int | None = None
    manufacturer: str | None = None
    family: str | None = None
    series: str | None = None
    share: Unit | None = None


class Infrastructure(_Part):
    """The box.

    Example:
        >>> Infrastructure(infra_type="onPremise", components=(Component(component_type="cpu", nb_component=1),)).infra_type
        'onPremise'
    """

    infra_type: Literal["publicCloud", "privateCloud", "onPremise", "other"]
    cloud_provider: str | None = None
    cloud_instance: str | None = None
    cloud_service: str | None = None
    components: Annotated[tuple[Component, ...], Field(min_length=1)]


class Environment(_Part):
    """The place and its electricity.

    Example:
        >>> Environment(country="Germany").country
        'Germany'
    """

    country: str
    latitude: float | None = None
    longitude: float | None = None
    location: str | None = None
    power_supplier_type: Literal["public", "private", "internal", "other"] | None = None
    power_source: Literal["solar", "wind", "nuclear", "hydroelectric", "gas", "coal", "other"] | None = None
    power_source_carbon_intensity: float | None = None


class BoAmps(_Part):
    """The whole report.

    Example::

        BoAmps.model_validate_json(text)  # raises if it is not valid
    """

    header: Header | None = None
    task: Task
    measures: Annotated[tuple[Measure, ...], Field(min_length=1)]
    system: System | None = None
    software: Software | None = None
    infrastructure: Infrastructure
    environment: Environment | None = None
    quality: Literal["high", "medium", "low"] | None = None
    """Percentage error of 10, 25, 50."""


def boamps(report: Report, ledger: Ledger) -> str:
    """Raises InputError for the report of a period, and if no energy is known: a task and its energy are required."""
    job = report.job
    if job is None:
        raise InputError("--format", "boamps is of one job", "give --job ID")
    if report.totals.energy_j <= 0:
        raise InputError(
            "--format",
            f"boamps must tell energy, and none of {job.id} is known",
            "use another format, which says why",
        )
    spec = job.spec
    hub = not (spec.model.name_or_path.startswith(("/", ".", "~")))
    country = next(
        (c for f in report.feeds if (c := country_called(f.zone.partition("-")[0])) is not None), None
    )
    document = BoAmps(
        header=_header(report),
        task=Task(
            task_stage="finetuning",
            task_family=spec.data.task or "text generation",
            algorithms=(
                Algorithm(
                    training_type="supervisedLearning",
                    algorithm_type="llm",
                    foundation_model_name=spec.model.name_or_path,
                    foundation_model_uri=f"https://huggingface.co/{spec.model.name_or_path}" if hub else None,
                    framework="transformers",
                    epochs_number=spec.train.epochs,
                    optimizer=spec.train.optimizer,
                    quantization=spec.model.dtype,
                ),
            ),
            dataset=(_dataset(spec.data.name_or_path),),
            task_description=" ".join(report.notes)[:4000] or None,
        ),
        measures=_measures(report),
        system=System(os=platform.system(), distribution=platform.release()),
        software=Software(language="python", version=platform.python_version()),
        infrastructure=Infrastructure(infra_type="other", components=_components(report, ledger)),
        environment=Environment(
            country=country.name if country else "not known",
            location=report.statement.site if report.statement else None,
            power_source_carbon_intensity=report.totals.g_per_kwh,
        ),
        quality=_quality(report),
    )  # fmt: skip
    return document.model_dump_json(by_alias=True, exclude_none=True, indent=2) + "\n"


def _header(report: Report) -> Header:
    job = report.job
    assert job is not None  # noqa: S101  the caller checked
    final = job.state.ended and not report.restatements
    return Header(
        format_version=_VERSION,
        format_version_specification_uri=_URI,
        report_id=str(uuid.uuid5(_NAMESPACE, f"{job.id} {report.created_at.isoformat()}")),
        report_datetime=f"{report.created_at:%Y-%m-%d %H:%M:%S}",
        report_status="final" if final else "corrective" if report.restatements else "draft",
        publisher=Publisher(
            name=report.statement.organisation if report.statement else None,
            project_name=job.name,
            confidentiality_level="internal",
        ),
    )


def _dataset(name: str) -> Dataset:
    suffix = PurePath(name).suffix.lstrip(".").replace("jsonl", "json").replace("txt", "text")
    local = name.startswith(("/", ".", "~")) or bool(suffix)
    kind = suffix if suffix in (*_FILES, "text") else None
    return Dataset.model_validate(
        {
            "data_usage": "input",
            "data_type": "text",
            "data_format": kind,
            "source": "private" if local else "public",
            "source_uri": None if local else f"https://huggingface.co/datasets/{name}",
        }
    )


def _measures(report: Report) -> tuple[Measure, ...]:
    """One measure for each method with known energy."""
    first = report.first
    return tuple(
        Measure(
            measurement_method=f"carbonsched: {_WAYS[EnergyMethod(part.name)]}",
            version=__version__,
            gpu_tracking_mode="nvml" if any("nvml" in each for each in report.boundary.inside) else None,
            cpu_tracking_mode=next((x for x in report.boundary.inside if x.startswith("CPU")), None),
            power_consumption=part.sums.energy_j / J_PER_KWH,
            measurement_duration=part.sums.seconds,
            measurement_date_time=f"{first:%Y-%m-%d %H:%M:%S}" if first else None,
        )
        for part in report.methods
        if part.name in _WAYS and part.sums.energy_j > 0
    )


_WAYS: Final = {
    EnergyMethod.COUNTER: "hardware counter",
    EnergyMethod.INTEGRATED: "power readings over time",
    EnergyMethod.ESTIMATED: "modelled, or split by time",
}


def _components(report: Report, ledger: Ledger) -> tuple[Component, ...]:
    assert report.job is not None  # noqa: S101
    starts = ledger.history(report.job.id, kinds=("started",))
    names = {board: name for entry in starts for board, name in entry.get("names", {}).items()}
    boards = Counter(names.get(b.name, "not known") for b in report.boards if b.name != "host")
    found = [
        Component(component_name=name, component_type="gpu", nb_component=n) for name, n in boards.items()
    ]
    if not found or any(b.name == "host" for b in report.boards):
        name = names.get("host", "not known")
        found.append(Component(component_name=name, component_type="cpu", nb_component=1))
    return tuple(found)  # fmt: skip


def _quality(report: Report) -> Literal["high", "medium", "low"] | None:
    """By the energy's band; None: some energy is unknown, or the band is wider than the schema's widest class."""
    band, energy = report.bands, report.totals.energy_j
    if band is None or energy <= 0 or report.totals.unknown_s > 0:
        return None
    error = (band.energy_high_j - energy) / energy
    classes: tuple[tuple[float, Literal["high", "medium", "low"]], ...] = (
        (0.10, "high"),
        (0.25, "medium"),
        (0.50, "low"),
    )
    return next((name for most, name in classes if error <= most), None)


BOAMPS: Final = ReportFormat("application/json", boamps)
