"""What most types pack: a ranked model, with the files that describe it and what the manifest says of it."""

from packhouse.artifacts import ArtifactStore
from packhouse.candidates import MODEL_NAME
from packhouse.packaging.candidate_files import SETTINGS_NAME, candidate_files
from packhouse.packaging.contents import Content, Contents, below, model_contents
from packhouse.packaging.golden import GOLDEN_NAME
from packhouse.packaging.job import PackagingJob
from packhouse.packaging.manifest import PackagedCandidate
from packhouse.packaging.olive_files import model_info
from packhouse.ranking import Ranked, Ranking


def packed_model(
    job: PackagingJob, chosen: Ranked, store: ArtifactStore, *, folder: str = "", beside: Contents | None = None
) -> tuple[dict[str, Content], PackagedCandidate]:
    """Return the files of a ranked model, below `folder` of the package, and what the manifest is to say of it.

    The model is ``model.onnx``; settings, history, metrics, golden samples, and what is given as `beside`, lie beside it. The
    place may be taken from any ranking of the job: ``job.best``, or one of ``job.by_accelerator["cpu-cpu"].ranked``.

    Raises:
        PackagingFailed: the candidate has a file whose name is taken, or that not every system can have.
    """
    ranked, overall = _same_place(job.by_accelerator[chosen.accelerator], chosen), _same_place(job.overall, chosen)
    prefix = f"{folder}/" if folder else ""
    described = candidate_files(job, ranked, model_info(job, overall, f"{prefix}{MODEL_NAME}"), store)
    contents = model_contents(job.candidate(ranked.candidate), store, {**described, **(beside or {})})
    packaged = PackagedCandidate.of(
        job,
        ranked,
        overall,
        model_path=f"{prefix}{MODEL_NAME}",
        settings_path=f"{prefix}{SETTINGS_NAME}",
        golden_path=f"{prefix}{GOLDEN_NAME}",
    )
    return below(folder, contents) if folder else contents, packaged


def _same_place(ranking: Ranking, chosen: Ranked) -> Ranked:
    wanted = (chosen.candidate, chosen.accelerator)
    return next(item for item in ranking.ranked if (item.candidate, item.accelerator) == wanted)
