"""From a slide and prompts to outlines: backends, predictor, segmenter, tasks and executors."""
