"""Declare the sources of images, each a class with its conf/dataset/ file's keys."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mnist_exp.config.own_code import active_file, own_choices
from mnist_exp.config.values import Count, ExistingPath, Maximum, Seed, Share, Side
from mnist_exp.data.metadata import Metadata, read_metadata
from mnist_exp.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt

_MNIST = Path(__file__).resolve().parents[1] / "data" / "mnist.npz"


@dataclass(frozen=True, kw_only=True)
class Arrays(Metadata):
    """A source's unchecked images, and their labels: integers or the classes' names.

    `source` says where they came from. `file_names` has the training and the test pictures' names, relative to their
    folder.
    """

    x_train: "npt.NDArray[Any]"
    y_train: "npt.NDArray[Any]"
    x_test: "npt.NDArray[Any]"
    y_test: "npt.NDArray[Any]"
    name: str
    source: str
    file_names: tuple[tuple[str, ...], tuple[str, ...]] | None = None


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """The keys that all sources share.

    `training/split.py` applies `validation`, and `datasets.py` applies `limit`.
    """

    kind: str
    validation: Literal["test"] | Count | Share
    limit: Count | None
    seed: Seed

    def read(self) -> Arrays:
        """Return all images and labels.

        Raises:
            InputError: if they cannot be read.
        """
        raise NotImplementedError

    def files(self) -> Sequence[Path] | None:
        """Return all files that `read` reads, or None if they are unknown.

        Unknown files are read each time.
        """
        return None


@dataclass(frozen=True, kw_only=True)
class MnistDataset(Dataset):
    """The 70,000 handwritten digits that come with the package."""

    kind: Literal["mnist"]

    def read(self) -> Arrays:
        return _make_arrays(self, _MNIST, "mnist_exp/data/mnist.npz")

    def files(self) -> list[Path]:
        return [_MNIST]


@dataclass(frozen=True, kw_only=True)
class NpzDataset(Dataset):
    """One NumPy file, with `maximum` for a white pixel.

    The default is the file's maximum, or 255.
    """

    kind: Literal["npz"]
    path: ExistingPath
    maximum: Maximum | None

    def read(self) -> Arrays:
        path = Path(self.path).expanduser()
        return _make_arrays(self, path, str(path), self.maximum)

    def files(self) -> list[Path]:
        return [Path(self.path).expanduser()]


@dataclass(frozen=True, kw_only=True)
class IdxDataset(Dataset):
    """A folder with MNIST's four original files, plain or .gz."""

    kind: Literal["idx"]
    path: ExistingPath

    def read(self) -> Arrays:
        from mnist_exp.data.array_files import read_idx

        folder = Path(self.path).expanduser()
        return Arrays(**read_idx(folder, self.limit), name=folder.resolve().name, source=str(folder))

    def files(self) -> list[Path]:
        from mnist_exp.data.array_files import idx_files

        return idx_files(Path(self.path).expanduser())


@dataclass(frozen=True, kw_only=True)
class KerasDataset(Dataset):
    """A dataset of keras.datasets, which Keras downloads once."""

    kind: Literal["keras"]
    name: Literal["mnist", "fashion_mnist", "cifar10", "cifar100"]

    def read(self) -> Arrays:
        from mnist_exp.config.keras_backend import keras

        try:
            (x_train, y_train), (x_test, y_test) = getattr(keras.datasets, self.name).load_data()
        except Exception as error:  # urllib, tarfile and Keras raise whatever a broken network or download makes of it
            raise InputError(
                f"dataset.name={self.name}: Keras could not download it ({error}); it needs a network once. "
                "dataset=mnist needs none; dataset=npz and dataset=idx read files that you have"
            ) from error
        return Arrays(
            x_train=x_train,
            y_train=y_train.reshape(len(y_train)),
            x_test=x_test,
            y_test=y_test.reshape(len(y_test)),
            name=self.name,
            source=f"keras.datasets.{self.name}",
        )

    def files(self) -> list[Path]:
        return []  # a download does not change


@dataclass(frozen=True, kw_only=True)
class FolderDataset(Dataset):
    """A folder of image files for each class, resized to `size` by `size`.

    Without test/, the share `test` is held out.
    """

    kind: Literal["folder"]
    path: ExistingPath
    size: Side
    color: bool
    test: Share

    def read(self) -> Arrays:
        import numpy as np

        from mnist_exp.data.array_files import Header, check_arrays
        from mnist_exp.data.pictures import decode, find

        folder = Path(self.path).expanduser()
        names, train, test = find(folder, self.test, self.seed)
        image, headers = (self.size, self.size, *([3] if self.color else [])), {}
        for part, found in (("train", train), ("test", test)):
            headers[f"x_{part}"] = Header((len(found), *image), np.dtype(np.uint8))
            headers[f"y_{part}"] = Header((len(found),), np.dtype(np.int64))
        check_arrays(f"dataset.path={self.path}", headers, self.limit, "set a smaller dataset.size")
        paths, labels = zip(*train, *test, strict=True)
        images = decode(paths, self.size, color=self.color)
        file_names, count = tuple(path.relative_to(folder).as_posix() for path in paths), len(train)
        return Arrays(
            x_train=images[:count],
            y_train=np.array(labels[:count]),
            x_test=images[count:],
            y_test=np.array(labels[count:]),
            name=folder.resolve().name,
            source=str(folder),
            file_names=(file_names[:count], file_names[count:]),
            names=names,
            resized=True,
        )

    def files(self) -> list[Path]:
        from mnist_exp.data.pictures import find

        _, train, test = find(Path(self.path).expanduser(), self.test, self.seed)
        return [path for path, _ in train + test]


@dataclass(frozen=True, kw_only=True)
class OwnDataset(Dataset):
    """A function with `@mnist_exp.dataset` in the file of `code=`.

    Its arguments are the keys.
    """

    def read(self) -> Arrays:
        """Call the function, which returns its data as `keras.datasets` does."""
        import numpy as np

        from mnist_exp.config.own_code import call

        code = active_file()
        assert code is not None
        returned = call("dataset", self)
        wanted = "must return ((x_train, y_train), (x_test, y_test)), NumPy arrays of numbers; labels may be text"
        match returned:
            case ((x_train, y_train), (x_test, y_test)):
                arrays = {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}
            case _:
                length = f" of {len(returned)}" if isinstance(returned, tuple | list) else ""
                raise InputError(f"dataset={self.kind}: {wanted}; returned {type(returned).__name__}{length}")
        for part, array in arrays.items():
            if not isinstance(array, np.ndarray):
                raise InputError(f"dataset={self.kind}: {wanted}; {part} is {type(array).__name__}")
        return Arrays(**arrays, name=self.kind, source=code.path)


def sources() -> list[type[Dataset]]:
    """Return all sources that can be chosen now."""
    return [source for source in Dataset.__subclasses__() if source is not OwnDataset] + own_choices(
        "dataset", OwnDataset
    )


def _make_arrays(config: Dataset, path: Path, source: str, maximum: float | None = None) -> Arrays:
    """Return the arrays of a file with its metadata.

    `maximum` takes precedence over the file's.
    """
    from mnist_exp.data.array_files import read_npz

    arrays, known = read_npz(path, config.limit), asdict(read_metadata(path))
    return Arrays(**arrays, name=path.stem, source=source, **known | {"maximum": maximum or known["maximum"]})
