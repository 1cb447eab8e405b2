"""The page ``/geodl`` of the dashboard, which reads ``geodl.json`` once a second."""

from __future__ import annotations

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>geodl runs</title>
<style>
  body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 56rem; color: #222;
         padding: 0 1rem; background: #fff; }
  section { border: 1px solid #ddd; border-radius: 6px; padding: .8rem 1.2rem; margin: 1rem 0; }
  h2 { font-size: 1.05rem; margin: 0 0 .5rem; }
  h2 small { font-weight: normal; color: #777; }
  progress { width: 100%; height: 1.1rem; }
  dl { display: grid; grid-template-columns: repeat(4, auto); gap: .1rem 1.5rem; margin: .6rem 0; }
  dt { color: #777; } dd { margin: 0; font-variant-numeric: tabular-nums; }
  li { color: #a00; }
  nav a { color: #06c; }
</style>
</head>
<body>
<h1>geodl runs</h1>
<nav><a href="status">Dask dashboard</a></nav>
<main id="runs"><p>No run has been started on this cluster yet.</p></main>
<script>
function add(parent, name, text) {
  const node = parent.appendChild(document.createElement(name));
  if (text !== undefined) node.textContent = text;
  return node;
}
function show(run) {
  const box = document.createElement("section");
  const head = add(box, "h2", run.run + " ");
  add(head, "small", run.state);
  const bar = add(box, "progress");
  bar.max = run.total; bar.value = run.done;
  const facts = add(box, "dl");
  const rate = run.total ? Math.round(100 * run.done / run.total) : 100;
  for (const [name, value] of [
    ["blocks done", run.done + " of " + run.total + " (" + rate + " %)"],
    ["resumed", run.resumed], ["empty", run.skipped], ["failed", run.failed],
    ["MPix/s", run.mpix_per_s], ["device busy", Math.round(100 * run.busy) + " %"],
    ["seconds", Math.round(run.wall_s)],
  ]) { add(facts, "dt", name); add(facts, "dd", String(value)); }
  const list = add(box, "ul");
  for (const text of run.failures) add(list, "li", text);
  return box;
}
async function refresh() {
  try {
    const answer = await fetch("geodl.json");
    const runs = (await answer.json()).runs;
    if (runs.length) document.getElementById("runs").replaceChildren(...runs.map(show));
  } finally {
    setTimeout(refresh, 1000);
  }
}
refresh();
</script>
</body>
</html>
"""
