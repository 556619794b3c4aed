"""The two classes of Xu, Lu and Ebrahimi (MMSP 2023), and the same for Zennit, which is slow to import."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
