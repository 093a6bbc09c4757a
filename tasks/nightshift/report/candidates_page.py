"""The sections of the report's page about the candidates: what each is, what each costs, and the vote."""

from typing import Final

CANDIDATES: Final = """<h2>Candidates</h2>
<p>Of the candidates inside all limits, the one that is best by {{ plan.pipeline.promotion.objective }} is
chosen on the validation images, before any of them sees the test images.</p>
<img alt="Validation accuracy of the candidates against their latency"
 src="data:image/png;base64,{{ pictures.candidates }}">
<div class="scroll"><table class="dense">
<tr><th>candidate</th><th class="n">accuracy</th><th class="n">points lost</th><th class="n">MB</th>
<th class="n">in int8</th><th class="n">layers</th><th class="n">bits</th><th class="n">pair sum</th>
<th>policy</th></tr>
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
<td class="n">{{ row.pair_sum | number(0) if row.pair_sum else '–' }}</td>
{% else %}
<td class="n">–</td><td class="n">–</td><td class="n">–</td><td class="n">–</td><td class="n">–</td>
<td class="n">–</td><td class="n">–</td>
{% endif %}
<td{% if row.state == 'chosen' %} class="good"{% endif %}>
{{ row.note or row.state }}</td></tr>
{% endfor %}
</table></div>
<p class="soft">◆: on the Pareto front. Accuracy and points lost against fp32 of the same networks: on the
validation images. In int8: share of the multiply-adds. Layers: quantized ones. Bits: of weights / biases.
Pair sum: what two products of a layer add up to at most; up to 32,767 all processors give the
same labels.</p>
"""

TIMES: Final = """<h2>Times</h2>
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
<p class="soft">{{ machine }}. Every model in the fastest runtime whose labels are those of the file's exact
arithmetic, in fresh processes that take turns.</p>
"""

MEMBERS: Final = """<h2>Members of the ensemble</h2>
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
"""
