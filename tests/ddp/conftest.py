from tests.train.conftest import launcher, pictures, plain, teacher

__all__ = ["launcher", "pictures", "plain", "teacher"]
