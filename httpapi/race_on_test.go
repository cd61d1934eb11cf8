//go:build race

package httpapi

const raceEnabled = true // memory is not what it is without the detector
