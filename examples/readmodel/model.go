package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"cairn/client"
	"cairn/event"
)

// schema has the table that the program is for, and the one row that says up
// to where in which log it has come.
const schema = `
CREATE TABLE IF NOT EXISTS accounts (account TEXT PRIMARY KEY, balance INTEGER NOT NULL, events INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS followed (one INTEGER PRIMARY KEY CHECK (one = 1), log TEXT NOT NULL, position INTEGER NOT NULL) STRICT;
INSERT OR IGNORE INTO followed VALUES (1, '', 0);`

// model is the database. It is a client.Subscriber.
type model struct {
	db *sql.DB
	at client.Checkpoint // as stored
}

func openModel(ctx context.Context, file string) (*model, error) {
	db, err := sql.Open("sqlite", "file:"+file+"?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_txlock=immediate")
	if err != nil {
		return nil, err
	}
	if _, err := db.ExecContext(ctx, schema); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", file, err), db.Close())
	}
	return &model{db: db}, nil
}

func (m *model) close() { _ = m.db.Close() }

// Load returns up to where the table has come.
func (m *model) Load(ctx context.Context) (client.Checkpoint, error) {
	err := m.db.QueryRowContext(ctx, "SELECT log, position FROM followed").Scan(&m.at.Log, &m.at.Position)
	return m.at, err
}

// Take adds a batch and its position in one transaction.
func (m *model) Take(ctx context.Context, b client.Batch) error {
	tx, err := m.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // nothing to roll back after Commit
	if err := m.write(ctx, tx, &b); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	m.at = b.Checkpoint
	return nil
}

func (m *model) write(ctx context.Context, tx *sql.Tx, b *client.Batch) error {
	for i := range b.Events {
		if err := add(ctx, tx, &b.Events[i]); err != nil {
			return fmt.Errorf("event at position %d: %w", b.Events[i].Position, err)
		}
	}
	// Of two programs with one database the second to come finds the position
	// moved, and none of what it did stays.
	result, err := tx.ExecContext(ctx, "UPDATE followed SET log = ?, position = ? WHERE log = ? AND position = ?",
		b.Checkpoint.Log, b.Checkpoint.Position, m.at.Log, m.at.Position)
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n != 1 {
		return errors.Join(errors.New("another program writes to this database"), err)
	}
	return nil
}

func add(ctx context.Context, tx *sql.Tx, e *event.Event) error {
	var data struct {
		Amount int64 `json:"amount"`
	}
	if err := json.Unmarshal(e.Data, &data); err != nil {
		return err
	}
	if e.Type == "FundsWithdrawn" {
		data.Amount = -data.Amount
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO accounts VALUES (?, ?, 1)
		ON CONFLICT (account) DO UPDATE SET balance = balance + excluded.balance, events = events + 1`, e.Stream, data.Amount)
	return err
}

// print writes the table.
func (m *model) print(ctx context.Context, w io.Writer) error {
	at, err := m.Load(ctx)
	if err != nil {
		return err
	}
	rows, err := m.db.QueryContext(ctx, "SELECT account, balance, events FROM accounts ORDER BY account")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var account string
		var balance, events int64
		if err := rows.Scan(&account, &balance, &events); err != nil {
			return err
		}
		fmt.Fprintf(w, "%-20s %10d of %d events\n", account, balance, events)
	}
	fmt.Fprintf(w, "as of position %d\n", at.Position)
	return rows.Err()
}
