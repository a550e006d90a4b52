"""apidocs: sentences of the documentation inside the pinned dependencies. Text, class = module, group = package.

The sources are parsed and never imported. Which modules are read is written down here, so that nothing else that
happens to be installed changes the dataset.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa

from quickstudy.data.dataset import DatasetInfo, make_table
from quickstudy.starter.work import Progress, generator, silent
from quickstudy.system.workers import workers

FEWEST, MOST = 30, 36  # sentences a class
PER_FILE = 12  # so that no single file stands for its module
ENOUGH = 90  # sentences to choose from; the files that give them are drawn
NO_SOURCE = {"tests", "test", "testing", "_vendor", "externals"}  # folders that hold another's text, or none

# distribution, package, modules
SOURCES = (
    (
        "scikit-learn",
        "sklearn",
        "cluster covariance datasets decomposition ensemble feature_extraction feature_selection "
        "gaussian_process inspection linear_model manifold metrics model_selection neighbors preprocessing "
        "svm tree",
    ),
    ("scipy", "scipy", "cluster integrate interpolate io ndimage optimize signal sparse spatial special stats"),
    ("numpy", "numpy", "f2py lib linalg ma polynomial"),
    ("pandas", "pandas", "io plotting tseries errors"),
    (
        "matplotlib",
        "matplotlib",
        "animation axes backends collections colors dates image patches projections ticker transforms tri widgets",
    ),
    ("torch", "torch", "autograd cuda distributed distributions export fx jit nn optim onnx profiler sparse"),
    ("transformers", "transformers", "generation pipelines quantizers integrations trainer tokenization_utils_base"),
    ("sqlalchemy", "sqlalchemy", "dialects engine event orm pool sql ext"),
    ("prefect", "prefect", "blocks client deployments events logging runner server workers utilities"),
    ("mlflow", "mlflow", "data deployments gateway genai models projects pyfunc server store tracing tracking"),
    ("dvc", "dvc", "repo utils"),
    ("networkx", "networkx", "classes drawing generators linalg readwrite"),
    (
        "sympy",
        "sympy",
        "assumptions calculus codegen combinatorics crypto functions geometry integrals logic matrices "
        "ntheory parsing physics polys sets solvers stats tensor",
    ),
    ("fonttools", "fontTools", "feaLib misc pens ttLib varLib"),
    ("pydantic", "pydantic", "json_schema main networks types"),
    ("click", "click", "core"),
    ("rich", "rich", "console text progress"),
    ("pillow", "PIL", "Image ImageDraw ImageFilter"),
    ("fastapi", "fastapi", "applications security routing"),
    ("Jinja2", "jinja2", "environment filters"),
    ("Flask", "flask", "app"),
    ("Werkzeug", "werkzeug", "datastructures routing wrappers"),
    ("docker", "docker", "api models"),
    ("GitPython", "git", "index objects refs repo"),
    ("huggingface_hub", "huggingface_hub", "hf_api inference"),
    ("cryptography", "cryptography", "hazmat"),
    ("alembic", "alembic", "operations runtime"),
    ("aiohttp", "aiohttp", "connector"),
    ("fsspec", "fsspec", "implementations spec"),
    ("opentelemetry-sdk", "opentelemetry", "sdk"),
)


def build(progress: Progress = silent, packages: tuple[str, ...] | None = None) -> tuple[DatasetInfo, pa.Table]:
    """Read the documentation.

    Args:
        progress: told (done, total) in modules.
        packages: of these alone, for tests; None for all.
    """
    sources = [source for source in SOURCES if packages is None or source[1] in packages]
    places = [(package, module) for _, package, modules in sources for module in modules.split()]
    found: dict[tuple[str, str], list[str]] = {}
    with workers() as pool:
        for place, sentences in zip(places, pool.map(_sentences, *zip(*places, strict=True)), strict=True):
            found[place] = sentences
            progress(len(found), len(places))
    # A sentence that several modules share belongs to none of them.
    shared = Counter(key for sentences in found.values() for key in {_key(sentence) for sentence in sentences})
    rows = []
    for (package, module), sentences in found.items():
        own = [sentence for sentence in sentences if shared[_key(sentence)] == 1]
        if len(own) >= FEWEST:
            order = generator("apidocs", package, module).permutation(len(own))[:MOST]
            rows += [(own[i], f"{package}.{module}", package) for i in sorted(order)]
    texts, labels, groups = ([row[column] for row in rows] for column in range(3))
    # The part after + says how a wheel was built, not what it documents.
    used = [name for name, package, _ in sources if package in groups]
    pins = ", ".join(f"{name} {version(name).partition('+')[0]}" for name in used)
    info = DatasetInfo(
        name="apidocs",
        modality="text",
        description=f"Sentences of the docstrings of {len(set(labels))} modules of {len(set(groups))} Python packages.",
        licence="Each package's own: BSD, MIT, Apache-2.0 and others alike (see the package)",
        source=f"docstrings of {pins}",
        citation="The authors of each package; see its own documentation.",
        group="package",
    )
    return info, make_table("text", texts, labels, groups)


def _sentences(package: str, module: str) -> list[str]:
    """Prose of a module, no two sentences alike; not of all its files where there are many."""
    spec = find_spec(package)  # finds a top-level package without running it
    if spec is None or not spec.submodule_search_locations:
        return []
    place = Path(spec.submodule_search_locations[0]) / module
    files = sorted(place.rglob("*.py"), key=lambda file: file.relative_to(place).parts)
    if not files and place.with_suffix(".py").is_file():
        files = [place.with_suffix(".py")]
    per_file = PER_FILE if len(files) > 1 else MOST * 2
    sentences: dict[str, str] = {}
    for i in generator("apidocs", package, module, "files").permutation(len(files)):
        file = files[i]
        if NO_SOURCE & set(file.relative_to(place.parent).parts):
            continue
        taken = 0
        for doc in _docstrings(file):
            for sentence in _prose(doc):
                if taken < per_file and sentences.setdefault(_key(sentence), sentence) is sentence:
                    taken += 1
        if len(sentences) >= ENOUGH:
            break
    return list(sentences.values())


def _docstrings(file: Path) -> Iterator[str]:
    """Of the module, its classes and their methods, and its functions; code inside functions is not searched."""
    pending: list[ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]
    pending = [ast.parse(file.read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop(0)
        if (doc := ast.get_docstring(node)) is not None:
            yield doc
        if isinstance(node, ast.Module | ast.ClassDef):
            pending += [n for n in node.body if isinstance(n, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)]


_HEADING = re.compile(
    r"(?im)^(?:[-=~^*]{3,}|(args|arguments|parameters?|params|returns?|raises|yields?|examples?|notes?|references|"
    r"attributes|keyword args|see also|usage|warnings?|todo)\s*:{0,2})\s*$|^\s*(:param|:return|:arg|@)"
)


def _prose(doc: str) -> Iterator[str]:
    """Sentences of the paragraphs before the first heading, without markup."""
    heading = _HEADING.search(doc)
    text = doc[: heading.start()] if heading else doc
    for paragraph in re.split(r"\n\s*\n", text):
        # Code, lists, tables and directives are no prose.
        if re.search(r"(?m)^(\s{2,}|\.\. |>>>|[-*+•|#]|\d+[.)] )|>>>|::", paragraph):
            continue
        paragraph = re.sub(r":[\w:+-]+:`~?(?:[^`<]*<)?!?([^`>]*)>?`", r"\1", paragraph)
        paragraph = " ".join(re.sub(r"[`*]+_?", "", paragraph).split())
        for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z])", paragraph):
            if _reads_well(sentence):
                yield sentence


def _reads_well(sentence: str) -> bool:
    return (
        40 <= len(sentence) <= 250
        and sentence.isascii()
        and sentence[0].isupper()
        and sentence.endswith(".")
        and len(sentence.split()) >= 7
        and not re.search(
            r"[={}<>|\\\[\]]|http|\.\.\.|\w\(\w|e\.g\.$|i\.e\.$|(?i:deprecated|copyright|licen[cs]e)", sentence
        )
        and sum(c.isalpha() or c == " " for c in sentence) >= 0.92 * len(sentence)
    )


def _key(sentence: str) -> str:
    """What two sentences share that say the same."""
    return re.sub(r"[^a-z]", "", sentence.lower())
