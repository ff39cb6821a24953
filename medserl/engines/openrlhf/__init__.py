"""The engine for many GPUs: OpenRLHF's trainer, vLLM and DeepSpeed on a Ray cluster.

    constraints.py   which settings go together, checked before anything starts
    arguments.py     settings -> OpenRLHF's own arguments
    address.py       the Ray cluster to join, if there is one
    cluster.py       Ray: attach or start, placement, actors
    watch.py         waiting for actors, and what to say when one of them dies
    last_words.py    why a vLLM process died
    pool.py          completions from the vLLM engines: many stand where `engines.vllm` has one
    plan.py          which turn is trained in which pass on which GPU
    experiences.py   turns <-> OpenRLHF's Experience
    actors.py        what runs inside the Ray actors
    training.py      the update inside a policy actor, and what is measured there
    lora.py          adapters on OpenRLHF's policy, and how vLLM gets them
    trainer.py       RoundTrainer: OpenRLHF's trainer for role-turns
    engine.py        all of it behind `engines.base.Engine`

The game itself (prompts, filter, parsing, rewards) and the loop are those of every other engine: none of it is here.
"""
