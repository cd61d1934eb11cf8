package httpapi

import (
	_ "embed"
	"net/http"
)

// openAPIDocument describes every route, in OpenAPI 3.1.
//
//go:embed openapi.json
var openAPIDocument []byte

// openAPI is GET /v1/openapi.json.
func (s *Server) openAPI(x *exchange) error {
	if err := x.noParams(); err != nil {
		return err
	}
	return x.answer(http.StatusOK, openAPIDocument)
}
