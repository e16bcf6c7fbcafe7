# Training of a SAM on data sets with true masks (`train_sam.datasets`).
# Reads their `images`, `truth` and `superpixels` tables and image files, writes the weights, what they were made from
# and the learning curve. An unfinished run resumes from the .state file. One GPU where `gpu` says so, else the CPU.


rule train_sam:
    input:
        images=training_tables("datasets"),
        truth=training_tables("truth"),
        superpixels=training_tables("superpixels"),
        init=[CONFIG.train_sam.init] if CONFIG.train_sam.init else [],
    output:
        weights="results/train_sam/sam.safetensors",
        card="results/train_sam/sam.json",
        curve="results/train_sam/curve.csv",
    log:
        "results/train_sam/train.log",
    benchmark:
        "results/train_sam/benchmark.tsv"
    conda:
        "../../envs/crowdmask.yaml"
    threads: CONFIG.train_sam.threads
    resources:
        mem_mb=16000,
        runtime=1440,
        gpu=gpus,
    params:
        settings=training_settings,
        roots=training_roots,
        state="results/train_sam/unfinished.state",
    shell:
        "crowdmask stage train-sam --images {input.images:q} --truth {input.truth:q}"
        " --superpixels {input.superpixels:q} --roots {params.roots:q} --init {input.init:q}"
        " --gpu {resources.gpu} --settings {params.settings:q} --state {params.state:q}"
        " --curve {output.curve:q} --output {output.weights:q} 2>&1 | tee {log:q}"
