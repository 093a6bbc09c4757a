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
td.n, th.n { text-align: right } td.n, th.n, td.name { white-space: nowrap }
code { font-size: .85em; overflow-wrap: anywhere }
table.dense { font-size: .85rem } .dense th, .dense td { padding: .3rem .35rem }
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
<th class="n">recall</th><th class="n">F1</th><th class="n">p50 ms</th><th class="n">MB</th></tr>
{% for name, scores in test.items() %}
<tr><td>{{ name }}{% if name in versions %} (version {{ versions[name] }}){% endif %}</td>
<td class="n">{{ scores.images }}</td><td class="n">{{ scores.accuracy | percent }}</td>
<td class="n">{{ scores.precision | percent }}</td><td class="n">{{ scores.recall | percent }}</td>
<td class="n">{{ scores.f1 | percent }}</td><td class="n">{{ scores.speed.full.latency_ms_p50 | number }}</td>
<td class="n">{{ (scores.speed.size / 1e6) | number }}</td></tr>
{% endfor %}
</table></div>
<p class="soft">Labels come from ONNX Runtime. Precision, recall and F1 are means over the classes.
{% if unknown_to_champion %}{{ unknown_to_champion }} test images are of classes that a champion does not
know; it is not judged on them.{% endif %}</p>

<h2>Candidates</h2>
<p>Of the candidates inside all limits, the one that is best by {{ plan.pipeline.promotion.objective }} is
chosen on the validation images, before any of them sees the test images.</p>
<img alt="Validation accuracy of the candidates against their latency"
 src="data:image/png;base64,{{ pictures.candidates }}">
<div class="scroll"><table class="dense">
<tr><th>candidate</th><th class="n">accuracy</th><th class="n">points lost</th><th class="n">MB</th>
<th class="n">in int8</th><th class="n">layers</th><th class="n">bits</th><th>policy</th></tr>
{% for row in rows %}
<tr><td class="name">{{ row.name }}{% if row.front %} <span class="soft">◆</span>{% endif %}</td>
{% if row.speed %}
<td class="n">{{ row.accuracy | percent }}</td>
<td class="n">{{ '–' if row.loss is none else (100 * row.loss) | number }}</td>
<td class="n">{{ (row.speed.size / 1e6) | number }}</td>
<td class="n">
{{ '%.0f %%' | format(100 * row.details.int8_share) if 'int8_share' in row.details else '–' }}</td>
<td class="n">{{ row.details.get('quantized_nodes', '–') }}</td>
<td class="n">{{ row.details.get('weight_bits', '–') }} / {{ row.details.get('bias_bits', '–') }}</td>
{% else %}
<td class="n">–</td><td class="n">–</td><td class="n">–</td><td class="n">–</td><td class="n">–</td>
<td class="n">–</td>
{% endif %}
<td{% if row.state == 'chosen' %} class="good"{% endif %}>
{{ row.note or row.state }}</td></tr>
{% endfor %}
</table></div>
<p class="soft">◆: on the Pareto front. Accuracy and points lost against fp32 of the same networks: on the
validation images. In int8: share of the multiply-adds. Layers: quantized ones. Bits: of weights / biases.</p>

<h2>Times</h2>
<div class="scroll"><table class="dense">
<tr><th></th><th class="n" colspan="3">one thread, ms</th><th class="n" colspan="3">all threads, ms</th>
<th class="n" colspan="2">images/s (batch)</th><th class="n">load</th><th class="n">memory</th><th></th>
</tr>
<tr><th>model</th><th class="n">p50</th><th class="n">p90</th><th class="n">p99</th><th class="n">p50</th>
<th class="n">p90</th><th class="n">p99</th><th class="n">one thread</th><th class="n">all</th>
<th class="n">s</th><th class="n">MB</th><th>timed in</th></tr>
{% for name, speed in times %}
<tr><td class="name">{{ name }}</td>
{% for pace in (speed.single, speed.full) %}
<td class="n">{{ pace.latency_ms_p50 | number }}</td><td class="n">{{ pace.latency_ms_p90 | number }}</td>
<td class="n">{{ pace.latency_ms_p99 | number }}</td>
{% endfor %}
{% for pace in (speed.single, speed.full) %}
<td class="n">{{ pace.images_per_second | number(0) }} ({{ pace.batch }})</td>
{% endfor %}
<td class="n">{{ speed.load_seconds | number }}</td><td class="n">{{ speed.memory_mb | number(0) }}</td>
<td>{{ speed.runtime }}</td></tr>
{% endfor %}
</table></div>
<p class="soft">{{ machine }}. Every model in the fastest runtime whose labels are those of ONNX Runtime, in
fresh processes that take turns.</p>

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
<img alt="Confusion matrix of {{ chosen }} on the test images"
 src="data:image/png;base64,{{ pictures.confusion }}">
</body>
</html>
"""
