# The stub of pipeline.yaml says 1.1.
[ "$(sh dist/convert.sh rates 10)" = 11 ] && echo "10 euros are 11 dollars"
