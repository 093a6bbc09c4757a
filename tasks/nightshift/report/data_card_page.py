"""The template of the data card's page, in Python as that of the report."""

from typing import Final

PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ pipeline }}, data set {{ dataset.digest[:12] }}</title>
<style>
:root { color-scheme: light dark; --text: #1c2024; --soft: #60666d; --back: #fff; --line: #dfe3e7;
  --bad: #b3261e; --some: #8a5a00; --card: #f6f8fa }
@media (prefers-color-scheme: dark) { :root { --text: #e6e9ec; --soft: #9aa2aa; --back: #14171a;
  --line: #30363c; --bad: #ff8a80; --some: #e9b44c; --card: #1d2125 } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back);
  max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem; margin: 0 } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem }
.bad { color: var(--bad) } .some { color: var(--some) } .soft { color: var(--soft) }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(7.5rem, 1fr)); gap: .6rem;
  margin: 1rem 0 }
.facts div { background: var(--card); padding: .5rem .8rem } .facts b { display: block; font-size: 1.25rem }
.scroll { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .3rem .7rem; border-bottom: 1px solid var(--line); vertical-align: top }
td.n, th.n { text-align: right; white-space: nowrap }
code { font-size: .85em; overflow-wrap: anywhere }
img { max-width: 100%; background: #fff; border-radius: .3rem }
</style>
</head>
<body>
<h1>{{ pipeline }}: data card</h1>
<p class="soft">Data set <code>{{ dataset.digest }}</code> from <code>{{ dataset.source }}</code>, stored at
{{ dataset.preprocess.side }} × {{ dataset.preprocess.side }} pixels</p>
<div class="facts">
{% for split in splits %}
<div><b>{{ totals[split] | count }}</b>{{ split }} images</div>
{% endfor %}
<div><b>{{ rows | length | count }}</b>classes</div>
<div><b>{{ '%.1f' | format(imbalance) }}</b>imbalance: largest to smallest class</div>
<div><b>{{ dataset.refused | count }}</b>files refused</div>
<div><b>{{ (duplicates.merged + duplicates.conflicting + duplicates.corrected
  + (duplicates.near + duplicates.near_validation if duplicates.near_excluded else 0))
  | count }}</b>duplicates left out</div>
</div>
<img alt="Images per class, samples, and distributions of brightness, contrast, sharpness and size"
 src="data:image/png;base64,{{ picture }}">

<h2>Drift</h2>
{% for row in drifts %}
<p>{{ row.title }} (<code>{{ row.drift.dataset[:12] }}</code>,
{{ row.images | count }} images):</p>
<div class="scroll"><table>
<tr><th>property</th><th class="n">stability index</th><th>in words</th></tr>
{% for name, psi in row.drift.psi.items() %}
<tr><td>{{ name }}</td><td class="n">{{ '%.3f' | format(psi) }}</td>
<td class="{{ {'some drift': 'some', 'large drift': 'bad'}.get(words(psi), '') }}">{{ words(psi) }}</td></tr>
{% endfor %}
</table></div>
{% if row.new %}<p>New classes: {{ row.new }}.</p>{% endif %}
{% if row.gone %}<p>Classes that have gone: {{ row.gone }}.</p>{% endif %}
{% else %}
<p>There is no earlier data set to compare with.</p>
{% endfor %}
<p class="soft">Population stability index of the distributions: below {{ small }} is read as stable,
up to {{ large }} as some drift, above as large drift (E. M. Lewis, An Introduction to Credit Scoring, 1994;
N. Siddiqi, Credit Risk Scorecards, 2006). These limits are a convention. Drift says that the images are
different, not that a model does worse on them.</p>

<h2>Classes</h2>
<div class="scroll"><table>
<tr><th class="n">no.</th><th>class</th>{% for split in splits %}<th class="n">{{ split }}</th>{% endfor %}
<th class="n">all</th><th class="n">share</th></tr>
{% for row in rows %}
<tr><td class="n soft">{{ loop.index }}</td><td>{{ row.name }}</td>
{% for count in row.counts %}
<td class="n{{ ' bad' if not count }}">{{ count | count if count else 'none' }}</td>
{% endfor %}
<td class="n">{{ row.total | count }}</td><td class="n">{{ row.share | percent }}</td></tr>
{% endfor %}
</table></div>

<h2>Duplicates</h2>
<p>Exact copies merged: {{ duplicates.merged | count }}. Copies with contradicting labels left out:
{{ duplicates.conflicting | count }}. Copies whose label a newer upload corrects:
{{ duplicates.corrected | count }}. Training images that look like a validation or test image:
{{ duplicates.near | count }}; validation images that look like a test image:
{{ duplicates.near_validation | count }}; {{ 'left out' if duplicates.near_excluded else 'listed only' }}.
{% if lines %}All of them are in <code>duplicates.csv</code>, beside this page.{% endif %}</p>
{% if lines %}
<div class="scroll"><table>
<tr><th>kind</th><th>image</th><th>label</th><th>split</th><th>because of</th><th>label</th><th>split</th>
<th class="n">bits</th></tr>
{% for line in shown %}
<tr><td>{{ line.kind }}</td><td><code>{{ line.key }}</code></td><td>{{ line.label }}</td>
<td>{{ line.split }}</td>
<td><code>{{ line.other_key }}</code></td>
<td class="{{ 'bad' if line.other_label != line.label }}">{{ line.other_label }}</td>
<td>{{ line.other_split }}</td>
<td class="n">{{ '' if line.bits is none else line.bits }}</td></tr>
{% endfor %}
</table></div>
{% if lines | length > shown | length %}
<p class="soft">The first {{ shown | length }} of {{ lines | length | count }}.</p>
{% endif %}
{% endif %}

<h2>Files</h2>
<div class="scroll"><table>
<tr><th></th><th class="n">smallest</th><th class="n">5 %</th><th class="n">median</th><th class="n">95 %</th>
<th class="n">largest</th></tr>
{% for name, values in sizes.items() %}
<tr><td>{{ name }}</td>{% for value in values %}<td class="n">{{ value | count }}</td>{% endfor %}</tr>
{% endfor %}
</table></div>
<p>Formats:
{% for name, count in formats %}
{{ name }} {{ count | count }}{{ ', ' if not loop.last else '.' }}
{% endfor %}
</p>

<h2>Refused files</h2>
{% if refused %}
<div class="scroll"><table>
<tr><th>reason</th><th class="n">files</th></tr>
{% for reason, count in refused.items() %}
<tr><td>{{ reason }}</td><td class="n">{{ count | count }}</td></tr>
{% endfor %}
</table></div>
{% else %}
<p>No file was refused.</p>
{% endif %}

<h2>Channels</h2>
<div class="scroll"><table>
<tr><th>of the training pixels, 0 to 1</th><th class="n">red</th>
<th class="n">green</th><th class="n">blue</th></tr>
{% for name, values in {'mean': dataset.mean, 'standard deviation': dataset.std}.items() %}
<tr><td>{{ name }}</td>
{% for value in values %}
<td class="n">{{ '%.4f' | format(value) }}</td>
{% endfor %}
</tr>
{% endfor %}
</table></div>
</body>
</html>
"""
