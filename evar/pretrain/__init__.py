"""Pre-training of M2D, M2D-CLAP, MSM-MAE and their kin: from audio and captions to a checkpoint that adapters load.

``python -m evar.pretrain.corpus`` packs audio, ``python -m evar.pretrain.captions`` embeds captions, and
``python -m evar.pretrain --preset=…`` trains.
"""
