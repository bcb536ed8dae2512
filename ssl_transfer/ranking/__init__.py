"""The stage `rank`: which of several backbones to take for a task, before any is fine-tuned. Test images are not looked at."""
