"""The live endpoint: one process that answers requests with the newest champion.

Beside FastAPI it needs one queue, so it has that and no serving framework: LitServe and BentoML batch whole
requests across processes, cannot put the images of one request into a common batch with those of another, and
take requests until memory ends instead of answering 503.
"""
