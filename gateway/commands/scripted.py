"""`penstock scripted`: an OpenAI-compatible upstream that does what its script says, to try Penstock against."""

from __future__ import annotations

import click


@click.command(short_help="A scripted upstream, for tests and demonstrations.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port; 0 takes a free one. [default: 0]")
@click.option("--script", default="{}", help="A JSON object, or the path of a YAML or JSON file.", show_default=True)
def scripted(host: str, port: int, script: str) -> None:
    """Serve a script until Ctrl-C. The first line printed is {"port": N}.

    GET /scripted/calls tells what was delivered, so that bills can be compared with it.
    """
    import asyncio

    from gateway.commands.listen import listen
    from gateway.providers.scripted_server import read_server_script, serve

    server = read_server_script(script)
    listen(host, port).close()  # a port in use is refused with the same words as everywhere
    asyncio.run(serve(server, host, port))
