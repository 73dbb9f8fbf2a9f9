"""Cook what was ordered, one dish after the other."""

import time

import orders

db = orders.connect()
print("The kitchen is open.", flush=True)
while True:
    for number, name in db.execute("SELECT id, name FROM dish WHERE state = 'ordered'").fetchall():
        db.execute("UPDATE dish SET state = 'cooked' WHERE id = ?", [number])
        print(f"Cooked {name}.", flush=True)
    time.sleep(0.5)
