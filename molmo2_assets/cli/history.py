"""Commands about versions: what is stale and why, what something was made from, what changed.

Belongs here: what these commands print. Does not belong here: walking manifests (`molmo2_assets.lineage`).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from molmo2_assets.cli.show import NOTHING_YET, UserError, known, load, print_json, print_rows, unknown

if TYPE_CHECKING:
    from molmo2_assets.home import Home
    from molmo2_assets.lineage.walk import Node, Reason
    from molmo2_assets.profile import Profile


def stale(options: Any) -> None:
    """One line for each asset that is out of date and each cause."""
    from molmo2_assets.lineage.walk import current_assets

    _, home = load(options)
    nodes = current_assets(home)
    rows = [{"asset": key, **_because(reason), "seconds": node.seconds} for key, node in nodes.items() for reason in node.reasons]
    empty = "everything that was materialised is up to date" if nodes else NOTHING_YET
    print_rows(options, rows, ("asset", "because", "was", "now", "seconds"), empty)


def _because(reason: Reason) -> dict[str, str]:
    return {"because": reason.root, "was": reason.was, "now": reason.now, "through": " → ".join(reason.path)}


def why(options: Any) -> None:
    """The causes of one asset."""
    profile, home = load(options)
    node = _node(profile, home, options.name)
    print_rows(options, [_because(r) for r in node.reasons], ("because", "was", "now", "through"), f"{options.name} is up to date")


def _node(profile: Profile, home: Home, name: str) -> Node:
    """An asset that was materialised; one that the graph has but nobody made is told apart from one that nobody knows."""
    from molmo2_assets.lineage.walk import current_assets

    nodes = current_assets(home)
    if name in nodes:
        return nodes[name]
    from molmo2_assets.graph.build import build_definitions  # only here: it costs a second and answers a mistake

    keys = {key.to_user_string() for key in build_definitions(profile, home).resolve_asset_graph().get_all_asset_keys()}
    if name in keys:
        raise UserError(f"{name} was never materialised in profile {profile.name}: run `make demo`")
    raise UserError(unknown("asset", name, keys | set(nodes)))


def bom(options: Any) -> None:
    """Every version that an asset was made from."""
    from molmo2_assets.lineage.bom import bill_of_materials

    profile, home = load(options)
    if home.store(options.name).current(options.name) is None:
        _node(profile, home, options.name)  # says what is wrong with the name
    print_rows(options, bill_of_materials(home, options.name), ("asset", "data_version", "recipe", "revision", "rows"))


def diff(options: Any) -> None:
    """Rows added, removed and changed from the version before to the current one."""
    from molmo2_assets.lineage.diff import diff_stores
    from molmo2_assets.lineage.versions import versions

    profile, home = load(options)
    key = f"validated/{known(options.name, profile.datasets, 'dataset')}"
    current = home.store(key).current(key)
    if current is None:
        raise UserError(f"{key} was never materialised: run `make demo`")
    folder, manifest = current
    if manifest.state != "ready":
        raise UserError(f"{key} is {manifest.state}: {manifest.facts.get('reason', 'it holds no rows')}")
    others = [(f, m) for f, m in versions(home.store(key), key) if m.state == "ready" and m.data_version != manifest.data_version]
    if not others:
        raise UserError(f"{key} has one version on disk ({manifest.data_version}); a difference needs two")
    before, old = others[-1]
    found = dataclasses.asdict(diff_stores(before, folder))
    if options.json:
        print_json({"dataset": options.name, "from": old.data_version, "to": manifest.data_version, **found})
        return
    counts = f"+{found['added']} −{found['removed']} ~{found['changed']} ={found['unchanged']}"
    print(f"{old.data_version} → {manifest.data_version}: {counts}")
    for name, count in found["fields"].items():
        if count:
            print(f"  {name} differs in {count} rows")
    for kind, ids in found["examples"].items():
        for identifier in ids:
            print(f"  {kind}: {identifier}")
