"""Running models over blocks: tiles in batches, merged into pixels or detections."""
