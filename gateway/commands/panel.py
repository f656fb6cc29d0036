"""What `penstock up` says when it is ready: the address, a key, the tiers, and a first request to copy."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import click

from gateway.catalog import Catalog
from gateway.commands.data_folder import DataFolder
from gateway.types import TIERS

EXAMPLE = """\
  from openai import OpenAI
  client = OpenAI(base_url="{base}/v1", api_key="{key}")
  question = {{"role": "user", "content": "What is the capital of France?"}}
  answer = client.chat.completions.create(model="auto", messages=[question], temperature=0)
  print(answer.choices[0].message.content)

  curl {base}/v1/chat/completions -H "Authorization: Bearer {key}" \\
    -H "Content-Type: application/json" \\
    -d '{{"model": "auto", "temperature": 0, "messages": [{{"role": "user", "content": "What is the capital of France?"}}]}}'
"""


@dataclass(frozen=True, slots=True)
class Panel:
    """What is worth knowing. `first_key` is None when the configuration declares its keys, `admin_key_file` when the
    admin key comes from the environment."""

    address: str
    folder: DataFolder
    catalog: Catalog
    first_key: str | None = field(repr=False)
    admin_key_file: Path | None

    def show(self) -> None:
        """Print it on standard output, without a frame: people copy from it."""
        rows = {
            "Base URL": f"{self.address}/v1",
            "Key": f"{self.first_key}  (also in {self.folder.first_key})"
            if self.first_key
            else f"declared in the configuration: {', '.join(key.name for key in self.catalog.keys)}",
            "Admin": f"{self.address}/admin  (key: {self.admin_key_file or 'PENSTOCK_ADMIN_KEY'})",
            "Tiers": self._tiers(),
        }
        click.echo(f"\n{click.style('Penstock is ready', bold=True)}\n")
        for name, value in rows.items():
            click.echo(f"  {name:<10}{value}")
        click.echo("\n" + EXAMPLE.format(base=self.address, key=self.first_key or "YOUR_KEY"))
        click.echo("Ctrl-C stops everything.")

    def _tiers(self) -> str:
        named = {tier: dict.fromkeys(model.name for model in self.catalog.models_in(tier)) for tier in TIERS}
        return "; ".join(f"{tier}: {', '.join(names)}" for tier, names in named.items() if names)
