# The last deploy came to its end.
found=$(cat "$STATUS" 2>/dev/null) || { echo "$STATUS is missing"; exit 1; }
echo "$found"
[ "$found" = ready ]
