"""Virtual machine monitors behind one seam, and which accelerator they may use."""
