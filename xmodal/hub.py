"""The Hugging Face Hub: fetch a model folder that somebody published, and publish one.

Only what a model folder is made of is fetched: JSON, safetensors, tokenizer text. A pickle in a repository is never
downloaded, let alone read.
"""

from __future__ import annotations

import re
from pathlib import Path

from xmodal.errors import ModelError

_PARTS = ["*.json", "*.safetensors", "*.txt", "*.md", "*.model"]
_ID = re.compile(r"[\w.-]+/[\w.-]+")


def fetch(
    source: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | None = None,
    offline: bool = False,
) -> Path:
    """The folder of a model: ``source`` itself, or a copy of what the Hub holds under that id.

    A folder is never looked up on the network, and an id only if it is not in the local cache.

    Args:
        source: A folder, or an id such as ``"user/model"``.
        revision: A branch, tag or commit of the Hub repository; None means its main branch.
        cache_dir: Where copies are kept; None means Hugging Face's own cache.
        token: For private repositories; None means the one that ``hf auth login`` stored.
        offline: Use the local cache alone.

    Raises:
        ModelError: If there is no such folder, and no such model in the cache or on the Hub.
    """
    folder = Path(source).expanduser()
    if folder.exists() or not _ID.fullmatch(str(source)) or str(source).startswith((".", "~")):
        return folder  # whoever reads it says what is wrong with it
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    def download(local: bool) -> Path:
        return Path(
            snapshot_download(
                str(source),
                revision=revision,
                cache_dir=cache_dir,
                token=token,
                allow_patterns=_PARTS,
                local_files_only=local,
            )
        )

    try:
        return download(local=True)
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        if offline:
            raise ModelError(f"{source} is neither a folder nor in the local cache of the Hub") from error
    try:
        return download(local=False)
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"{source} is neither a folder nor in the local cache, nor could it be fetched from the Hugging Face Hub "
            f"({reason}); check the name, or log in with: hf auth login"
        ) from error


def push(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str = "Upload an xmodal model",
    token: str | None = None,
) -> str:
    """Publish a model folder; the repository is made if it is not there.

    Args:
        folder: What :meth:`xmodal.model.TwoTower.save` wrote.
        repo_id: Such as ``"user/model"``.
        private: Make a new repository private.
        revision: The branch to write to; None means the main one.
        message: Of the commit.
        token: None means the one that ``hf auth login`` stored.

    Returns:
        The address of the commit.

    Raises:
        ModelError: If the id is none, or the Hub refuses.
    """
    if not _ID.fullmatch(repo_id):
        raise ModelError(f"{repo_id!r} is no id of the Hugging Face Hub; it has the form user/model")
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(token=token)
    try:
        api.create_repo(repo_id, private=private, repo_type="model", exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id, folder_path=Path(folder), revision=revision, commit_message=message, repo_type="model"
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{repo_id}: the Hugging Face Hub refused the upload ({reason})") from error
    return str(getattr(commit, "commit_url", commit))
