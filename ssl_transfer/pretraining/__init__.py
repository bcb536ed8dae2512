"""The stage `pretrain`: recipe and store in, backbone out."""
