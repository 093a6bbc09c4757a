"""The sections of the report's page about what the test images show."""

from typing import Final

PAIRED: Final = """<h2>Image by image</h2>
<div class="scroll"><table>
<tr><th>{{ chosen }} against</th><th class="n">images</th><th class="n">only it is right</th>
<th class="n">only the other is</th><th class="n">points</th><th class="n">95 % interval</th>
<th class="n">p (McNemar)</th></tr>
{% for name, pair in evidence.paired.items() %}
<tr><td>{{ name }}{% if name in versions %} (version {{ versions[name] }}){% endif %}</td>
<td class="n">{{ pair.images }}</td><td class="n">{{ pair.wins }}</td><td class="n">{{ pair.losses }}</td>
<td class="n">{{ '%+.2f' | format(100 * pair.difference) }}</td>
<td class="n">{{ '%+.2f to %+.2f' | format(100 * pair.low, 100 * pair.high) }}</td>
<td class="n">{{ '%.3f' | format(pair.p_value) }}</td></tr>
{% endfor %}
</table></div>
"""

ROBUSTNESS: Final = """{% set tried = evidence.robustness %}
<h2>Robustness</h2>
<div class="scroll"><table>
<tr><th>{{ tried.images }} test images</th>
{% for name in tried.clean %}<th class="n">{{ name }}</th>{% endfor %}</tr>
<tr><td>unchanged</td>{% for share in tried.clean.values() %}<td class="n">{{ share | percent }}</td>
{% endfor %}</tr>
<tr><td><strong>mean of {{ tried.corruptions | length }} corruptions</strong></td>
{% for name in tried.clean %}<td class="n"><strong>{{ tried.corrupted(name) | percent }}</strong></td>
{% endfor %}</tr>
{% for each in tried.attacks %}
<tr><td>{{ each.kind | upper }}, at most {{ '%g' | format(each.epsilon) }} of 255 a pixel</td>
{% for name in tried.clean %}
<td class="n">{{ each.accuracy[name] | percent if name in each.accuracy else '–' }}</td>
{% endfor %}</tr>
{% endfor %}
</table></div>
{% if tried.corruptions %}
<details{% if tried.corruptions | length <= 12 %} open{% endif %}><summary>each corruption</summary>
<div class="scroll"><table class="dense">
<tr><th>corruption</th><th class="n">severity</th>
{% for name in tried.clean %}<th class="n">{{ name }}</th>{% endfor %}</tr>
{% for each in tried.corruptions %}
<tr><td>{{ each.family | replace('_', ' ') }}</td><td class="n">{{ each.severity }}</td>
{% for name in tried.clean %}<td class="n">{{ each.accuracy[name] | percent }}</td>{% endfor %}</tr>
{% endfor %}
</table></div></details>
{% endif %}
<p class="soft">Attacks are made with the float network and transferred to the others, which is weaker than an
attack made for them.</p>
"""

CONFUSION: Final = """<h2>Confusion</h2>
<img alt="Confusion matrix of {{ chosen }} on the test images"
 src="data:image/png;base64,{{ pictures.confusion }}">
"""

CALIBRATION: Final = """<h2>Calibration</h2>
<img alt="Accuracy against confidence of every model on the test images"
 src="data:image/png;base64,{{ pictures.reliability }}">
"""

CURVES: Final = """<h2>Curves</h2>
<img alt="ROC and precision-recall curves of {{ chosen }} by class"
 src="data:image/png;base64,{{ pictures.curves }}">
<p class="soft">Each class against all others{% if evidence.curves | length > 8 %}; the eight of
{{ evidence.curves | length }} with the lowest average precision{% endif %}.</p>
"""

SLICES: Final = """<h2>Slices</h2>
<details{% if evidence.slices | length <= 20 %} open{% endif %}>
<summary>accuracy by what is known about the images</summary>
<div class="scroll"><table class="dense">
<tr><th>by</th><th>value</th><th class="n">images</th>
{% for name in test %}<th class="n">{{ name }}</th>{% endfor %}</tr>
{% for each in evidence.slices %}
<tr><td>{{ each.column }}</td><td>{{ each.value }}</td><td class="n">{{ each.images }}</td>
{% for name in test %}
<td class="n">{{ each.accuracy[name] | percent if name in each.accuracy else '–' }}</td>
{% endfor %}</tr>
{% endfor %}
</table></div></details>
"""

WRONG: Final = """<h2>Confidently wrong</h2>
<img alt="Test images that {{ chosen }} is wrong about, the most confident first"
 src="data:image/png;base64,{{ pictures.wrong }}">
<p class="soft">Beside each image is where the float network looked (Grad-CAM), from blue to yellow.</p>
"""

HARDEST: Final = """<h2>The hardest images</h2>
<img alt="Test images whose label {{ chosen }} finds the least likely"
 src="data:image/png;base64,{{ pictures.hardest }}">
"""

SUSPECTS: Final = """<h2>Labels to look at</h2>
<img alt="Test images whose label may be an error" src="data:image/png;base64,{{ pictures.suspects }}">
<div class="scroll"><table class="dense">
<tr><th>image</th><th>label</th><th class="n">gets</th><th>looks like</th><th class="n">gets</th></tr>
{% for each in evidence.suspects %}
<tr><td><code>{{ each.key }}</code></td><td>{{ each.label }}</td><td class="n">{{ each.own | percent }}</td>
<td>{{ each.predicted }}</td><td class="n">{{ each.confidence | percent }}</td></tr>
{% endfor %}
</table></div>
<p class="soft">By confident learning: another class gets at least what that class's own images get. A wrong
label among the test images hides how good a model is; mend it at its source.</p>
"""

CLASSES: Final = """<h2>Classes</h2>
<details{% if test[chosen].per_class | length <= 30 %} open{% endif %}><summary>each class</summary>
<div class="scroll"><table>
<tr><th>class</th><th class="n">test images</th><th class="n">precision</th><th class="n">recall</th>
<th class="n">F1</th><th class="n">ROC AUC</th><th class="n">AP</th></tr>
{% for name, row in test[chosen].per_class.items() %}
<tr><td>{{ name }}</td><td class="n">{{ '%d' | format(row.images) }}</td>
<td class="n">{{ row.precision | percent }}</td><td class="n">{{ row.recall | percent }}</td>
<td class="n">{{ row.f1 | percent }}</td>
<td class="n">{{ row.roc_auc | number(4) if 'roc_auc' in row else '–' }}</td>
<td class="n">{{ row.average_precision | number(4) if 'average_precision' in row else '–' }}</td></tr>
{% endfor %}
</table></div></details>
"""
