"""The template of the report's page. It is Python, so that it travels with the package wherever that goes."""

from typing import Final

PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ plan.pipeline.name }}, {{ plan.night }}</title>
<style>
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
td.n, th.n { text-align: right; white-space: nowrap } code { font-size: .85em; overflow-wrap: anywhere }
img { max-width: 100%; background: #fff; border-radius: .3rem }
</style>
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
<div class="scroll"><table>
<tr><th></th><th>gate</th><th class="n">value</th><th class="n">limit</th><th>in words</th></tr>
{% for verdict in verdicts %}
<tr><td class="{{ 'good' if verdict.passed else 'bad' }}">{{ '✓' if verdict.passed else '✗' }}</td>
<td>{{ verdict.gate }}</td><td class="n">{{ '%.4g' | format(verdict.value) }}</td>
<td class="n">{{ '%.4g' | format(verdict.limit) }}</td><td>{{ verdict.sentence }}</td></tr>
{% endfor %}
</table></div>

<h2>Scores on the test images</h2>
<div class="scroll"><table>
<tr><th>model</th><th class="n">images</th><th class="n">accuracy</th><th class="n">precision</th>
<th class="n">recall</th><th class="n">F1</th><th class="n">p50 ms</th><th class="n">p99 ms</th>
<th class="n">images/s</th><th class="n">MB</th><th>timed in</th></tr>
{% for name, scores in test.items() %}
<tr><td>{{ name }}{% if name in versions %} (version {{ versions[name] }}){% endif %}</td>
<td class="n">{{ scores.images }}</td><td class="n">{{ scores.accuracy | percent }}</td>
<td class="n">{{ scores.precision | percent }}</td><td class="n">{{ scores.recall | percent }}</td>
<td class="n">{{ scores.f1 | percent }}</td><td class="n">{{ '%.2f' | format(scores.latency_ms_p50) }}</td>
<td class="n">{{ '%.2f' | format(scores.latency_ms_p99) }}</td>
<td class="n">{{ '%.0f' | format(scores.images_per_second) }}</td>
<td class="n">{{ '%.2f' | format(scores.size / 1e6) }}</td><td>{{ scores.runtime }}</td></tr>
{% endfor %}
</table></div>
<p class="soft">Labels come from ONNX Runtime, times from the fastest runtime that agrees with it, all models
in turns in one process. Precision, recall and F1 are means over the classes.
{% if unknown_to_champion %}{{ unknown_to_champion }} test images are of classes that a champion does not
know; it is not judged on them.{% endif %}
Validation accuracy, by which the candidate was chosen:
{% for name, accuracy in validation.items() %}
{{ name }} {{ accuracy | percent }}{{ ', ' if not loop.last else '.' }}
{% endfor %}</p>

{% if standings %}
<h2>Members of the ensemble</h2>
<div class="scroll"><table>
<tr><th>network</th><th class="n">validation accuracy</th>
<th class="n">points against the best member</th></tr>
{% macro row(name, accuracy) %}
<tr><td>{{ name }}</td><td class="n">{{ accuracy | percent }}</td>
<td class="n">{{ '%+.2f' | format(100 * (accuracy - standings.members | max)) }}</td></tr>
{% endmacro %}
{% for accuracy in standings.members %}
{{ row('member ' ~ loop.index0, accuracy) }}
{% endfor %}
{{ row('soft vote of all', standings.soft) }}
{{ row('hard vote of all', standings.hard) }}
</table></div>
<p class="soft">Float networks on the {{ dataset.counts.validation.values() | sum }} validation images. A soft
vote takes the mean of the members' probabilities, a hard vote the class that most members name; which votes
become candidates is the setting quantize.vote.</p>
{% endif %}

<h2>Classes</h2>
<div class="scroll"><table>
<tr><th>class</th><th class="n">test images</th><th class="n">precision</th><th class="n">recall</th>
<th class="n">F1</th></tr>
{% for name, row in test[chosen].per_class.items() %}
<tr><td>{{ name }}</td><td class="n">{{ '%d' | format(row.images) }}</td>
<td class="n">{{ row.precision | percent }}</td><td class="n">{{ row.recall | percent }}</td>
<td class="n">{{ row.f1 | percent }}</td></tr>
{% endfor %}
</table></div>

<h2>Confusion</h2>
<img alt="Confusion matrix of {{ chosen }} on the test images" src="data:image/png;base64,{{ figure }}">
</body>
</html>
"""
