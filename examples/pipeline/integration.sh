# The real service says 1.2.
[ "$(sh dist/convert.sh "$DB_HOST" 10)" = 12 ] && echo "10 euros are 12 dollars"
