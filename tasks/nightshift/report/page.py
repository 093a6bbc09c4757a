"""The frame of the report's page: its look, the verdict, the gates, the scores. Other sections are included.

Templates are Python, so that they travel with the package wherever that goes.
"""

from typing import Final

STYLE: Final = """
:root { color-scheme: light dark; --text: #1c2024; --soft: #60666d; --back: #fff; --line: #dfe3e7;
  --good: #14713d; --bad: #b3261e; --card: #f6f8fa }
@media (prefers-color-scheme: dark) { :root { --text: #e6e9ec; --soft: #9aa2aa; --back: #14171a;
  --line: #30363c; --good: #5fd08d; --bad: #ff8a80; --card: #1d2125 } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back);
  max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem; margin: 0 } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem }
.good { color: var(--good) } .bad { color: var(--bad) } .soft { color: var(--soft) }
.verdict { background: var(--card); border-left: .3rem solid; padding: .8rem 1rem; margin: 1rem 0 }
.verdict p { color: var(--text); margin: .2rem 0 } .scroll { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .35rem .5rem; border-bottom: 1px solid var(--line); vertical-align: top }
td.n, th.n { text-align: right } td.n, th.n, td.name { white-space: nowrap }
@media (max-width: 40rem) { .gates tr { display: grid; grid-template-columns: 1.6rem 1fr 4rem 4rem 4.6rem }
  .gates th:last-child { display: none } .gates td.words { grid-column: 2 / -1 }
  .gates td { border-bottom: 0 } .gates tr { border-bottom: 1px solid var(--line) } }
code { font-size: .85em; overflow-wrap: anywhere }
table.dense { font-size: .85rem } .dense th, .dense td { padding: .3rem .35rem }
img { max-width: 100%; background: #fff; border-radius: .3rem }
summary { cursor: pointer; color: var(--soft) }
@media print { :root { --text: #000; --soft: #444; --back: #fff; --line: #bbb; --good: #14713d;
  --bad: #b3261e; --card: #f2f2f2 } body { max-width: none; margin: 0; font-size: 10pt }
  img, tr, .verdict { break-inside: avoid } h2 { break-after: avoid } .scroll { overflow: visible }
  table.dense { font-size: 7pt } }
"""

PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ plan.pipeline.name }}, {{ plan.night }}</title>
<style>{{ style }}</style>
</head>
<body>
<h1>{{ plan.pipeline.name }}</h1>
<p class="soft">{{ plan.night }} · {{ dataset.classes | length }} classes · {{ plan.images }} images in
{{ plan.batches }} batches · {{ dataset.refused }} files refused · data set
<code>{{ dataset.digest[:12] }}</code></p>
<div class="verdict {{ 'good' if passed else 'bad' }}">
<strong>{{ chosen }}: {{ 'all gates passed' if passed else 'refused' }}</strong>
{% for verdict in refused_by %}
<p>{{ verdict.gate }}: {{ verdict.sentence }}</p>
{% endfor %}
<p class="soft">SHA-256 <code>{{ test[chosen].sha256 }}</code></p>
</div>

<h2>Gates</h2>
<div class="scroll"><table class="gates">
<tr><th></th><th>gate</th><th class="n">value</th><th class="n">limit</th><th class="n">champ.</th>
<th>in words</th></tr>
{% for verdict in verdicts %}
<tr><td class="{{ 'good' if verdict.passed else 'bad' }}">{{ '✓' if verdict.passed else '✗' }}</td>
<td>{{ verdict.gate }}</td><td class="n">{{ verdict.value | digits }}</td>
<td class="n">{{ verdict.limit | digits }}</td>
<td class="n">{{ verdict.champion | digits }}</td>
<td class="words">{{ verdict.sentence }}</td></tr>
{% endfor %}
</table></div>

<h2>Scores on the test images</h2>
<div class="scroll"><table class="dense">
<tr><th>model</th><th class="n">images</th><th class="n">accuracy (95 %)</th>
<th class="n">top {{ test[chosen].k }}</th><th class="n">precision</th><th class="n">recall</th>
<th class="n">F1 (95 %)</th><th class="n">weighted F1</th><th class="n">ROC AUC</th><th class="n">AP</th>
<th class="n">Brier</th><th class="n">ECE</th></tr>
{% for name, scores in test.items() %}
<tr><td class="name">{{ name }}{% if name in versions %} (version {{ versions[name] }}){% endif %}</td>
<td class="n">{{ scores.images }}</td>
<td class="n">{{ scores.accuracy | percent }} <span class="soft">{{ scores.interval | span }}</span></td>
<td class="n">{{ scores.top_k | percent }}</td>
<td class="n">{{ scores.precision | percent }}</td><td class="n">{{ scores.recall | percent }}</td>
<td class="n">{{ scores.f1 | percent }} <span class="soft">{{ scores.f1_interval | span }}</span></td>
<td class="n">{{ scores.weighted_f1 | percent }}</td>
<td class="n">{{ '–' if scores.roc_auc is none else scores.roc_auc | number(4) }}</td>
<td class="n">{{ '–' if scores.average_precision is none else scores.average_precision | number(4) }}</td>
<td class="n">{{ scores.brier | number(4) }}</td>
<td class="n">{{ scores.calibration_error | number(4) }}</td></tr>
{% endfor %}
</table></div>
<p class="soft">Labels are those of each file's exact arithmetic. Precision, recall, F1, ROC AUC and average
precision (AP) are means over the classes; Brier: mean squared error of the probabilities, 0 to 2; ECE:
expected calibration error.
{% if test[chosen].images < 1000 %}One image is {{ (1 / test[chosen].images) | percent }} of these
{{ test[chosen].images }}: small differences are chance.{% endif %}
{% if unknown_to_champion %}{{ unknown_to_champion }} test images are of classes that a champion does not
know; it is not judged on them.{% endif %}</p>

{% for section in sections %}
{% include section %}

{% endfor %}
<p class="soft">Numbers behind the figures: <code>evidence.json</code> beside this page. Settings
<code>{{ plan.settings_digest[:12] }}</code>, data
<code>{{ plan.data_digest[:12] }}</code>. {{ computed }}.</p>
</body>
</html>
"""
